"""Parsed truth, and particles, of several TPCs -> one file in their common frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import labels, parsed, particles
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE
from hpcreco.experiments.protodune.joining import Frame
from hpcreco.experiments.protodune.joining.groups import UNIT, Counts, Group, Joiner, same_events
from hpcreco.shards import Shard, ShardWriter


def write_truth(joiner: Joiner, group: Group) -> dict[str, Any]:
    """Join parsed truth; its counts and residuals. JoiningError names what does not fit."""
    frame, counts = joiner.frame(VOXEL_SIZE), Counts()
    with ExitStack() as stack:
        inputs = [stack.enter_context(parsed.open_parsed(path)) for path in group.inputs]
        joiner.check(group, [file.attributes for file in inputs])
        ids = same_events(group, [file.event_ids for file in inputs])
        attributes = _attributes(joiner, group, inputs[0].attributes)
        with parsed.truth_writer(group.output, attributes) as writer:
            for event, event_id in enumerate(ids):
                merged = _truth_event(joiner, [file.truth(event) for file in inputs], frame, counts)
                parsed.append_truth(
                    writer, int(event_id), merged.coords, merged.values, merged.track_id, merged.pdg
                )
            writer.set_attribute("joined", frame.record() | asdict(counts))
    return frame.record() | asdict(counts)


def _truth_event(
    joiner: Joiner, parts: Sequence[parsed.TruthVoxels], frame: Frame, counts: Counts
) -> labels.CoarseTruth:
    placed = [joiner.placed(frame, number, part.coords, counts) for number, part in enumerate(parts)]
    coords = np.concatenate([cells for cells, _ in placed])

    def column(name: str) -> np.ndarray | None:
        columns = [getattr(part, name) for part in parts]
        if any(values is None for values in columns):
            return None
        return np.concatenate([v[keep] for v, (_, keep) in zip(columns, placed, strict=True)])

    values = column("values")
    assert values is not None
    merged = labels.coarse(coords, values, UNIT, column("track_id"), column("pdg"))
    counts.events += 1
    counts.rows += len(merged.coords)
    counts.duplicates += len(coords) - len(merged.coords)
    return merged


def write_particles(joiner: Joiner, group: Group) -> dict[str, Any]:
    """Join lists of particles: each particle once, in detector coordinates as it was."""
    frame, counts = joiner.frame(VOXEL_SIZE), Counts()
    with ExitStack() as stack:
        inputs = [stack.enter_context(Shard(path, parsed.PARTICLES)) for path in group.inputs]
        joiner.check(group, [shard.attributes for shard in inputs])
        ids = same_events(group, [shard.event_ids for shard in inputs])
        attributes = _attributes(joiner, group, inputs[0].attributes)
        with ShardWriter(group.output, parsed.PARTICLES, attributes) as writer:
            for event, event_id in enumerate(ids):
                parts = [shard.read(event, "particles") for shard in inputs]
                merged = particles.union(parts)
                writer.append(int(event_id), {"particles": merged})
                counts.events += 1
                counts.rows += len(merged["track_id"])
                counts.duplicates += sum(len(p["track_id"]) for p in parts) - len(merged["track_id"])
            writer.set_attribute("joined", frame.record() | asdict(counts))
    return frame.record() | asdict(counts)


def _attributes(joiner: Joiner, group: Group, first: Mapping[str, Any]) -> dict[str, Any]:
    kept = {a.name for a in parsed.TRUTH.attributes} - {"fingerprint"}
    return {name: value for name, value in first.items() if name in kept} | {
        "tpc": parsed.NO_TPC,
        "tpcs": list(joiner.options.tpcs),
        "geometry": joiner.geometry.name,
        "geometry_digest": joiner.geometry.digest,
        "generator": first.get("generator", "npz"),
        "source": [str(path) for path in group.inputs],
        "recipe": joiner.recipe(group),
    }
