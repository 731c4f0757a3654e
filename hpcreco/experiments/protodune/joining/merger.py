"""The output of several TPCs, as files, put into one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import joining, names
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE, Geometry
from hpcreco.experiments.protodune.joining import Frame, merging
from hpcreco.experiments.protodune.solved import MERGED
from hpcreco.filewise import Job
from hpcreco.shards import Shard, ShardWriter


class MergeError(ValueError):
    """Files that cannot be merged, or options that do not fit them."""

    exit_code = 2


@dataclass(frozen=True)
class Merger:
    """Merges groups of files, one per TPC in the order of `tpcs`."""

    geometry: Geometry
    tpcs: tuple[int, ...]
    t0_us: float
    least: float

    def job(self, paths: Sequence[Path], folder: Path) -> Job:
        """What is to be done for one group."""
        digests = []
        for path in paths:
            with Shard(path) as shard:
                digests.append(shard.digest)
        recipe = {
            "inputs": digests,
            "tpcs": list(self.tpcs),
            "t0": self.t0_us,
            "least": self.least,
            "geometry": self.geometry.digest,
        }
        output = folder / names.replace_tpc(names.replace_product(paths[0], "merged"), self.tpcs)
        size = sum(path.stat().st_size for path in paths)
        return Job(output.name, tuple(paths), (output,), json.dumps(recipe, sort_keys=True), size)

    def write(self, job: Job) -> dict[str, Any]:
        """Merge one group; counts for the run report. Raises MergeError naming the files that do not fit."""
        report = {"events": 0, "voxels": 0, "filled": 0}
        with ExitStack() as stack:
            parts = [stack.enter_context(Shard(path)) for path in job.inputs]
            frame = self._frame(parts)
            field, columns = _values(parts[0])
            attributes = self._attributes(job, parts, frame)
            additive = field != "probability"
            with ShardWriter(job.outputs[0], MERGED, attributes, {"voxels/values": columns}) as writer:
                for event, number in enumerate(parts[0].event_ids.tolist()):
                    read = {
                        tpc: _read(part, event, field, columns)
                        for tpc, part in zip(self.tpcs, parts, strict=True)
                    }
                    merged = merging.merge(frame, _voxel_mm(parts[0])[2], read, additive, self.least)
                    rows = {
                        "coords": merged.coords,
                        "values": merged.values.astype(np.float32),
                        "tpc": merged.tpc,
                    }
                    writer.append(number, {"voxels": rows})
                    report["events"] += 1
                    report["voxels"] += len(merged.coords)
                    report["filled"] += int((merged.tpc == merging.FILLED).sum())
        return report

    def _frame(self, parts: Sequence[Shard]) -> Frame:
        """The frame of files that belong together."""
        first = parts[0]
        for part in parts:
            if part.format != first.format or part.attributes["downsample"] != first.attributes["downsample"]:
                raise MergeError(f"{part.path} and {first.path}: other content or cell sizes")
            if part.event_ids.tolist() != first.event_ids.tolist():
                raise MergeError(f"{part.path} and {first.path} hold different events")
            if part.attributes.get("geometry_digest", self.geometry.digest) != self.geometry.digest:
                raise MergeError(
                    f"{part.path}: made with another geometry than {self.geometry.name}; give it by --geometry"
                )
        return joining.frame(self.geometry, self.tpcs, _voxel_mm(first), self.t0_us)

    def _attributes(self, job: Job, parts: Sequence[Shard], frame: Frame) -> dict[str, Any]:
        name = names.require(job.inputs[0])
        known = {"batch": name.batch, "epoch": name.epoch}
        return {key: value for key, value in known.items() if value is not None} | {
            "event_type": name.event_type,
            "index": name.index,
            "product": name.product,
            "tpc": list(self.tpcs),
            "downsample": list(parts[0].attributes["downsample"]),
            "voxel_size_mm": list(_voxel_mm(parts[0])),
            "frame_origin_mm": list(frame.origin_mm),
            "frame": frame.record(),
            "least": self.least,
            "geometry": self.geometry.name,
            "geometry_digest": self.geometry.digest,
            "source_digests": [part.digest for part in parts],
            "source_files": [str(path) for path in job.inputs],
            "recipe": json.loads(job.fingerprint),
        }


def _voxel_mm(part: Shard) -> tuple[float, float, float]:
    x, y, z = (v * d for v, d in zip(VOXEL_SIZE, part.attributes["downsample"], strict=True))
    return x, y, z


def _values(part: Shard) -> tuple[str, tuple[str, ...]]:
    """The field of `voxels` that is merged, and what its columns are called."""
    for field in ("charge", "probability", "features"):
        if part.has("voxels", field):
            return field, part.columns("voxels", field) or (field,)
    raise MergeError(f"{part.path}: holds neither charge, probability nor features")


def _read(part: Shard, event: int, field: str, columns: Sequence[str]) -> tuple[Any, Any]:
    """Coords (N, 3) and values (N, k) of an event, the columns in the order of the first TPC's."""
    table = part.read(event, "voxels", ["coords", field])
    values = table[field].reshape(len(table["coords"]), -1)
    return table["coords"], merging.in_order(values, part.columns("voxels", field) or (field,), columns)
