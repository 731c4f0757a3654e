"""xy shards of several TPCs -> one image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import labels
from hpcreco.experiments.protodune.joining import Frame
from hpcreco.experiments.protodune.joining.groups import (
    UNIT,
    Counts,
    Group,
    Joiner,
    JoiningError,
    same_events,
)
from hpcreco.experiments.protodune.xy import XY
from hpcreco.shards import Shard, ShardWriter

#: what xy files must have in common to be one image
SHARED = (
    *("downsample", "voxel_size_mm", "x_type", "y_type", "y_unit", "tiling_threshold", "active_none"),
    *("clip_negative", "legacy_rounding", "tiling_version", "geometry_digest", "n_batches", "downsample_y"),
)


def write(joiner: Joiner, group: Group) -> dict[str, Any]:
    """Join the xy shards of a group; its counts and residuals. JoiningError names what does not fit."""
    with ExitStack() as stack:
        inputs = [stack.enter_context(Shard(path, XY)) for path in group.inputs]
        joiner.check(group, [shard.attributes for shard in inputs])
        _check_shared(inputs)
        ids = same_events(group, [shard.event_ids for shard in inputs])
        frame = joiner.frame(inputs[0].attributes["voxel_size_mm"])
        counts = Counts()
        attributes = _xy_attributes(inputs, frame) | {"recipe": joiner.recipe(group)}
        with ShardWriter(group.output, XY, attributes, _columns(inputs)) as writer:
            for event, event_id in enumerate(ids):
                writer.append(int(event_id), _event(joiner, inputs, event, frame, counts))
            writer.set_attribute("joined", frame.record() | asdict(counts))
    return frame.record() | asdict(counts)


def _event(
    joiner: Joiner, inputs: Sequence[Shard], event: int, frame: Frame, counts: Counts
) -> dict[str, dict[str, Any]]:
    voxels = _stacked(joiner, inputs, event, "voxels", frame, counts)
    merged = labels.coarse(voxels["coords"], voxels["features"], UNIT)
    counts.events += 1
    counts.rows += len(merged.coords)
    counts.duplicates += len(voxels["coords"]) - len(merged.coords)
    rows: dict[str, Any] = {"coords": merged.coords, "features": merged.values}
    tables: dict[str, dict[str, Any]] = {"voxels": rows}
    truth = None
    if inputs[0].has("truth"):
        cells = _stacked(joiner, inputs, event, "truth", frame, Counts())
        truth = labels.coarse(cells["coords"], cells["values"], UNIT, cells.get("track_id"), cells.get("pdg"))
        tables["truth"] = truth.columns()
    if "labels" in voxels:
        own = labels.coarse(voxels["coords"], voxels["labels"], UNIT).values
        rows["labels"] = own if truth is None else labels.label(merged.coords, truth)
    if truth is not None and inputs[0].has("coarser"):
        coarser = labels.coarser(merged.coords, truth, inputs[0].attributes["downsample_y"])
        rows["coarser_row"] = coarser.row
        tables["coarser"] = {"coords": coarser.coords, "values": coarser.values}
    if inputs[0].has("tiling"):
        tables["tiling"] = _tiling(inputs, event)
        if "missed" in tables["tiling"] and truth is not None:
            tables["tiling"]["missed"] = int(labels.missed(truth, merged.coords).sum())
    return tables


def _stacked(
    joiner: Joiner, inputs: Sequence[Shard], event: int, table: str, frame: Frame, counts: Counts
) -> dict[str, np.ndarray]:
    """The rows of a table of all TPCs, in the common frame."""
    parts = []
    for number, shard in enumerate(inputs):
        rows = shard.read(event, table)
        coords, keep = joiner.placed(frame, number, rows["coords"], counts)
        parts.append({name: values[keep] for name, values in rows.items()} | {"coords": coords})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_shared(inputs: Sequence[Shard]) -> None:
    first = inputs[0]
    for shard in inputs[1:]:
        for name in SHARED:
            ours, theirs = first.attributes.get(name), shard.attributes.get(name)
            if ours != theirs:
                raise JoiningError(
                    f"{shard.path}: {name} is {theirs}, but {first.path} has {ours}; tile them alike"
                )
        for table, fields in first.tables.items():
            if shard.tables.get(table) != fields:
                raise JoiningError(f"{shard.path} and {first.path} have different fields in {table}")


def _columns(inputs: Sequence[Shard]) -> dict[str, tuple[str, ...]]:
    """Column names; features keep their order by wire angle, whatever the face calls the plane."""
    first = inputs[0]
    features = [shard.columns("voxels", "features") for shard in inputs]
    found = {"voxels/features": tuple("/".join(dict.fromkeys(n)) for n in zip(*features, strict=True))}
    others = (("voxels", "labels"), ("truth", "values"), ("coarser", "values"), ("tiling", "lost_charge"))
    for table, field in others:
        if first.has(table, field):
            found[f"{table}/{field}"] = first.columns(table, field)
    if "tiling/lost_charge" in found:
        found["tiling/lost_charge"] = found["voxels/features"]
    return found


def _xy_attributes(inputs: Sequence[Shard], frame: Frame) -> dict[str, Any]:
    first = inputs[0].attributes
    kept = {a.name for a in XY.attributes}
    shapes = [shard.attributes["spatial_shape"] for shard in inputs]
    return {name: value for name, value in first.items() if name in kept} | {
        "tpc": list(frame.tpcs),
        "frame_origin_mm": list(frame.origin_mm),
        "spatial_shape": list(frame.shape(shapes)) if all(shapes) else [],
        "feature_names": list(_columns(inputs)["voxels/features"]),
        # channels of one APA have no meaning beside those of another: the inputs know their own
        "dead_channels": [],
        "source_digests": [shard.digest for shard in inputs],
        "source_files": [str(shard.path) for shard in inputs],
    }


def _tiling(inputs: Sequence[Shard], event: int) -> dict[str, Any]:
    """What tiling did, summed over the TPCs."""
    parts = [shard.read(event, "tiling") for shard in inputs]
    return {name: np.sum([part[name][0] for part in parts], axis=0) for name in parts[0]}
