"""What joining the files of several TPCs has in common for xy shards, parsed truth and particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import joining
from hpcreco.experiments.protodune.geometry import Geometry
from hpcreco.experiments.protodune.joining import Frame
from hpcreco.experiments.protodune.recipes import unfinished
from hpcreco.experiments.protodune.xy import XY
from hpcreco.experiments.protodune.xy_writer import inspect
from hpcreco.shards import Shard

VERSION = 1  # raise when the same input gives other rows: finished files become stale
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

    def frame(self, voxel_mm: Sequence[float]) -> Frame:
        """The common frame for voxels of a size."""
        o = self.options
        return joining.frame(self.geometry, o.tpcs, voxel_mm, o.t0_us, o.legacy_mirror)

    def check(self, group: Group, attributes: Sequence[Mapping[str, Any]]) -> None:
        """Raises JoiningError for files made with another geometry."""
        for path, its in zip(group.inputs, attributes, strict=True):
            if its.get("geometry_digest") not in (None, "", self.geometry.digest):
                raise JoiningError(
                    f"{path} was made with geometry {its['geometry']}, not {self.geometry.name}; "
                    f"name it with --geometry"
                )

    def placed(
        self, frame: Frame, number: int, coords: np.ndarray, counts: Counts
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cells in the frame, and a mask of the input rows that are in it."""
        placed = frame.place(number, coords)
        keep = np.ones(len(placed), bool)
        if self.options.drop_negative:
            keep = (placed >= 0).all(axis=1)
            counts.dropped += int((~keep).sum())
        return placed[keep], keep


def digest(path: Path) -> str:
    """Digest of a file's content, from its header."""
    if path.suffix == ".npz":
        return inspect(path).digest
    with Shard(path) as shard:
        return shard.digest


def same_events(group: Group, ids: Sequence[np.ndarray]) -> np.ndarray:
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
