"""Files of several TPCs put into one frame: xy shards, parsed truth, particles; one output per group of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import joining, labels, parsed, particles
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE, Geometry
from hpcreco.experiments.protodune.joining import Frame
from hpcreco.experiments.protodune.recipes import unfinished
from hpcreco.experiments.protodune.xy import XY
from hpcreco.experiments.protodune.xy_writer import inspect
from hpcreco.shards import Shard, ShardWriter

VERSION = 1  # raise when the same input gives other rows: finished files become stale
PARTICLES = "mcbeamcosmic"
PRODUCTS = ("xy", *parsed.VALUE_COLUMNS, PARTICLES)
#: what xy files must have in common to be one image
SHARED = (
    *("downsample", "voxel_size_mm", "x_type", "y_type", "y_unit", "tiling_threshold", "active_none"),
    *("clip_negative", "legacy_rounding", "tiling_version", "geometry_digest", "n_batches", "downsample_y"),
)
UNIT = (1, 1, 1)


class JoiningError(RuntimeError):
    """Files that cannot be joined."""

    exit_code = 1


@dataclass(frozen=True)
class Options:
    """How TPCs are joined: `t0_us`, the time all charge is taken to have been deposited at; the default leaves
    the drift-time offset in. `drop_negative` leaves out cells outside the frame, which no network takes.
    """

    tpcs: tuple[int, ...]
    t0_us: float
    legacy_mirror: bool = False
    drop_negative: bool = False


@dataclass(frozen=True)
class Group:
    """The files of one (event type, index, batch, product), one per TPC in the order of the list."""

    key: str
    product: str
    inputs: tuple[Path, ...]
    output: Path


@dataclass
class Counts:
    """What joining did to a file's rows."""

    events: int = 0
    rows: int = 0
    duplicates: int = 0  # rows that shared a cell with another, and were summed into it
    dropped: int = 0  # rows at negative coordinates that were left out


@dataclass(frozen=True)
class Joiner:
    """Joins groups of files with one set of options."""

    geometry: Geometry
    options: Options

    def recipe(self, group: Group) -> dict[str, Any]:
        """All that decides a group's output."""
        digests = [digest(path) for path in group.inputs]
        options = asdict(self.options) | {"tpcs": list(self.options.tpcs)}
        return {
            "inputs": digests,
            **options,
            "geometry": self.geometry.digest,
            "schema": XY.version,
            "joining": VERSION,
        }

    def finished(self, group: Group) -> str | None:
        """None when the group's output is complete and current, else why not."""
        return unfinished(group.output, self.recipe(group))

    def write(self, group: Group) -> dict[str, Any]:
        """Join one group; its counts and residuals for the run report. JoiningError names what does not fit."""
        write = {"xy": self._xy, PARTICLES: self._particles}.get(group.product, self._truth)
        return write(group)

    def _frame(self, voxel_mm: Sequence[float]) -> Frame:
        o = self.options
        return joining.frame(self.geometry, o.tpcs, voxel_mm, o.t0_us, o.legacy_mirror)

    def _check(self, group: Group, attributes: Sequence[Mapping[str, Any]]) -> None:
        for path, its in zip(group.inputs, attributes, strict=True):
            if its.get("geometry_digest") not in (None, "", self.geometry.digest):
                raise JoiningError(
                    f"{path} was made with geometry {its['geometry']}, not {self.geometry.name}; "
                    f"name it with --geometry"
                )

    def _placed(
        self, frame: Frame, number: int, coords: np.ndarray, counts: Counts
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cells in the frame, and a mask of the input rows that are in it."""
        placed = frame.place(number, coords)
        keep = np.ones(len(placed), bool)
        if self.options.drop_negative:
            keep = (placed >= 0).all(axis=1)
            counts.dropped += int((~keep).sum())
        return placed[keep], keep

    # ------------------------------------------------------------------------------------------------ xy

    def _xy(self, group: Group) -> dict[str, Any]:
        with ExitStack() as stack:
            inputs = [stack.enter_context(Shard(path, XY)) for path in group.inputs]
            self._check(group, [shard.attributes for shard in inputs])
            _check_shared(inputs)
            ids = _same_events(group, [shard.event_ids for shard in inputs])
            frame = self._frame(inputs[0].attributes["voxel_size_mm"])
            counts = Counts()
            attributes = _xy_attributes(inputs, frame) | {"recipe": self.recipe(group)}
            with ShardWriter(group.output, XY, attributes, _columns(inputs)) as writer:
                for event, event_id in enumerate(ids):
                    writer.append(int(event_id), self._xy_event(inputs, event, frame, counts))
                writer.set_attribute("joined", frame.record() | asdict(counts))
        return frame.record() | asdict(counts)

    def _xy_event(
        self, inputs: Sequence[Shard], event: int, frame: Frame, counts: Counts
    ) -> dict[str, dict[str, Any]]:
        voxels = self._stacked(inputs, event, "voxels", frame, counts)
        merged = labels.coarse(voxels["coords"], voxels["features"], UNIT)
        counts.events += 1
        counts.rows += len(merged.coords)
        counts.duplicates += len(voxels["coords"]) - len(merged.coords)
        rows: dict[str, Any] = {"coords": merged.coords, "features": merged.values}
        tables: dict[str, dict[str, Any]] = {"voxels": rows}
        truth = None
        if inputs[0].has("truth"):
            cells = self._stacked(inputs, event, "truth", frame, Counts())
            truth = labels.coarse(
                cells["coords"], cells["values"], UNIT, cells.get("track_id"), cells.get("pdg")
            )
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
        self, inputs: Sequence[Shard], event: int, table: str, frame: Frame, counts: Counts
    ) -> dict[str, np.ndarray]:
        """The rows of a table of all TPCs, in the common frame."""
        parts = []
        for number, shard in enumerate(inputs):
            rows = shard.read(event, table)
            coords, keep = self._placed(frame, number, rows["coords"], counts)
            parts.append({name: values[keep] for name, values in rows.items()} | {"coords": coords})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    # ---------------------------------------------------------------------------------------- parsed files

    def _truth(self, group: Group) -> dict[str, Any]:
        frame, counts = self._frame(VOXEL_SIZE), Counts()
        with ExitStack() as stack:
            inputs = [stack.enter_context(parsed.open_parsed(path)) for path in group.inputs]
            self._check(group, [file.attributes for file in inputs])
            ids = _same_events(group, [file.event_ids for file in inputs])
            attributes = self._parsed_attributes(group, inputs[0].attributes)
            with parsed.truth_writer(group.output, attributes) as writer:
                for event, event_id in enumerate(ids):
                    merged = self._truth_event([file.truth(event) for file in inputs], frame, counts)
                    parsed.append_truth(
                        writer, int(event_id), merged.coords, merged.values, merged.track_id, merged.pdg
                    )
                writer.set_attribute("joined", frame.record() | asdict(counts))
        return frame.record() | asdict(counts)

    def _truth_event(
        self, parts: Sequence[parsed.TruthVoxels], frame: Frame, counts: Counts
    ) -> labels.CoarseTruth:
        placed = [self._placed(frame, number, part.coords, counts) for number, part in enumerate(parts)]
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

    def _particles(self, group: Group) -> dict[str, Any]:
        frame, counts = self._frame(VOXEL_SIZE), Counts()
        with ExitStack() as stack:
            inputs = [stack.enter_context(Shard(path, parsed.PARTICLES)) for path in group.inputs]
            self._check(group, [shard.attributes for shard in inputs])
            ids = _same_events(group, [shard.event_ids for shard in inputs])
            attributes = self._parsed_attributes(group, inputs[0].attributes)
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

    def _parsed_attributes(self, group: Group, first: Mapping[str, Any]) -> dict[str, Any]:
        kept = {a.name for a in parsed.TRUTH.attributes} - {"fingerprint"}
        return {name: value for name, value in first.items() if name in kept} | {
            "tpc": parsed.NO_TPC,
            "tpcs": list(self.options.tpcs),
            "geometry": self.geometry.name,
            "geometry_digest": self.geometry.digest,
            "generator": first.get("generator", "npz"),
            "source": [str(path) for path in group.inputs],
            "recipe": self.recipe(group),
        }


def digest(path: Path) -> str:
    """Digest of a file's content, from its header."""
    if path.suffix == ".npz":
        return inspect(path).digest
    with Shard(path) as shard:
        return shard.digest


def _same_events(group: Group, ids: Sequence[np.ndarray]) -> np.ndarray:
    """The event ids, which all TPCs must share."""
    for path, its in zip(group.inputs, ids, strict=True):
        if len(its) != len(ids[0]):
            raise JoiningError(
                f"{group.inputs[0]} holds {len(ids[0])} events but {path} holds {len(its)}: "
                "the TPCs of a group must hold the same events"
            )
        if not np.array_equal(its, ids[0]):
            raise JoiningError(f"{group.inputs[0]} and {path} hold different events: their ids must agree")
    return ids[0]


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
