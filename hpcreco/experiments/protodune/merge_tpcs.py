"""Put the output of several TPCs into one frame and bridge the gaps between neighbouring APAs.

FILE are solved, yinf or xy files of one TPC each, or folders of them. Files of the same event type, index, batch and
epoch are merged; a group in which a TPC is missing is skipped. Between two APAs lie 2.5 coarse cells without wires:
there every value goes linearly from the last slice of one TPC to the first of the next.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcreco import filewise
from hpcreco.experiments.protodune import names
from hpcreco.filewise import Job, add_filewise_arguments

if TYPE_CHECKING:
    from hpcreco.experiments.protodune.geometry import Geometry
    from hpcreco.experiments.protodune.joining import Frame
    from hpcreco.shards import Shard

LOG = logging.getLogger("hpcreco")
PRODUCTS = ("solved", "yinf", "xy")

EPILOG = """\
examples:
  hpcreco protodune merge-tpcs solved -o merged                     TPCs 1, 5 and 9
  hpcreco protodune merge-tpcs solved -o merged -t 1 5
  hpcreco protodune merge-tpcs runs/ghost3d/inference -o merged --t0 0

The frame begins at the corner of the first TPC. The gap is bridged at the same (x, y), so a steep track is bridged
by two short stubs; voxels there have TPC -1. To train on joined images use `hpcreco join-tpcs` instead.
"""


class MergeError(ValueError):
    """Files that cannot be merged, or options that do not fit them."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="solved, yinf or xy files, or folders of them")
    add("-o", "--output", type=Path, required=True, metavar="MERGED", help="folder for the merged files")
    add("-t", "--tpcs", type=int, nargs="+", default=[1, 5, 9], metavar="T", help="(default: 1 5 9)")
    add(
        "--t0",
        type=float,
        default=-250.0,
        metavar="US",
        help="time of the event relative to the trigger, taken off the drift coordinate; -250 leaves it as read out "
        "(default: %(default)s)",
    )
    add(
        "--least",
        type=float,
        default=0.01,
        metavar="V",
        help="interpolated voxels have a value above it (default: %(default)s)",
    )
    add("--geometry", default="pdsp", help="pdsp or larsoft:<wire dump .json.bz2> (default: %(default)s)")
    add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Merge what is not finished; exit code 0, or 1 when a file failed."""
    from hpcreco import collective
    from hpcreco.experiments.protodune import geometry

    detector = geometry.load(args.geometry)
    if len(set(args.tpcs)) < len(args.tpcs) or len(args.tpcs) < 2:
        raise MergeError(f"-t {' '.join(map(str, args.tpcs))}: at least two TPCs, each once")
    merger = Merger(detector, tuple(args.tpcs), args.t0, args.least)
    ranks = collective.connect()
    jobs = collective.on_root(ranks.rank, ranks.broadcast, lambda: _plan(args, merger))
    return filewise.run(
        jobs,
        merger.write,
        finished=_unfinished,
        title="merge TPCs",
        report=args.output / "merge-tpcs.json",
        collective=ranks,
        **filewise.options(args),
    )


def _plan(args: argparse.Namespace, merger: Merger) -> list[Job]:
    for path in args.files:
        if not path.exists():
            raise MergeError(f"{path}: no such file or folder")
    known, _ = names.scan(args.files)
    wanted = [name for name in known if name.product in PRODUCTS and name.tpc in merger.tpcs]
    jobs = []
    for members in names.group(wanted, ("event_type", "index", "batch", "epoch", "product")).values():
        by_tpc = {name.tpc: name.path for name in members}
        missing = [str(tpc) for tpc in merger.tpcs if tpc not in by_tpc]
        if missing or len(by_tpc) < len(members):
            LOG.warning(
                "%s: %s, skipped",
                members[0].path,
                f"no file of TPC {', '.join(missing)} beside it" if missing else "several files of one TPC",
            )
            continue
        jobs.append(merger.job([by_tpc[tpc] for tpc in merger.tpcs], args.output))
    if not jobs:
        raise MergeError(
            f"{' '.join(map(str, args.files))}: no {', '.join(PRODUCTS)} files of all TPCs "
            f"{' '.join(map(str, merger.tpcs))}"
        )
    return jobs


def _unfinished(job: Job) -> str | None:
    """Why the merged file has to be made (again), or None."""
    otherwise = "stale: made from other files, or with other options"
    return filewise.unfinished(job.outputs[0], "recipe", json.loads(job.fingerprint), otherwise)


@dataclass(frozen=True)
class Merger:
    """Merges groups of files, one per TPC in the order of `tpcs`."""

    geometry: Geometry
    tpcs: tuple[int, ...]
    t0_us: float
    least: float

    def job(self, paths: Sequence[Path], folder: Path) -> Job:
        """What is to be done for one group."""
        from hpcreco.shards import Shard

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
        import numpy as np

        from hpcreco.experiments.protodune.joining import merging
        from hpcreco.experiments.protodune.solved import MERGED
        from hpcreco.shards import Shard, ShardWriter

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
        from hpcreco.experiments.protodune import joining

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
    from hpcreco.experiments.protodune.geometry import VOXEL_SIZE

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
    from hpcreco.experiments.protodune.joining.merging import in_order

    table = part.read(event, "voxels", ["coords", field])
    values = table[field].reshape(len(table["coords"]), -1)
    return table["coords"], in_order(values, part.columns("voxels", field) or (field,), columns)
