"""Truth on the coarse grid, the label of every candidate, and the truth that tiling missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.voxels import keys, rows_in


@dataclass(frozen=True)
class CoarseTruth:
    """All true cells of one event in lexicographic (x, y, z) order.

    coords : int32 (M, 3)
    values : float32 (M, k), summed
    track_id, pdg : int32 (M,) of the track with most of the first value, or None
    """

    coords: np.ndarray
    values: np.ndarray
    track_id: np.ndarray | None = None
    pdg: np.ndarray | None = None

    def columns(self) -> dict[str, np.ndarray]:
        """The columns that are known, by name."""
        ids = {"track_id": self.track_id, "pdg": self.pdg}
        return {"coords": self.coords, "values": self.values} | {
            name: column for name, column in ids.items() if column is not None
        }


def coarse(
    coords: np.ndarray,
    values: np.ndarray,
    downsample: Sequence[int],
    track_id: np.ndarray | None = None,
    pdg: np.ndarray | None = None,
) -> CoarseTruth:
    """Sum fine truth, coords (N, 3) and values (N, k), over coarse cells."""
    cells = np.floor_divide(np.asarray(coords, np.int64), np.asarray(downsample, np.int64))
    (key,) = keys(cells)
    found, first, cell = np.unique(key, return_index=True, return_inverse=True)
    sums = np.stack([np.bincount(cell, weights=column, minlength=len(found)) for column in values.T], axis=1)
    owners: list[np.ndarray | None] = [None, None]
    if track_id is not None and len(key):
        row = _dominant(cell, np.asarray(track_id), np.asarray(values)[:, 0])
        owners = [None if column is None else np.asarray(column, np.int32)[row] for column in (track_id, pdg)]
    elif track_id is not None:
        owners = [None if column is None else np.zeros(0, np.int32) for column in (track_id, pdg)]
    return CoarseTruth(cells[first].astype(np.int32), sums.astype(np.float32), *owners)


def _dominant(cell: np.ndarray, track: np.ndarray, value: np.ndarray) -> np.ndarray:
    """For each cell, a row of the track that has most of `value` in it (the lowest track number on a tie)."""
    order = np.lexsort((track, cell))
    new = np.r_[True, (np.diff(cell[order]) != 0) | (np.diff(track[order]) != 0)]
    starts = order[new]
    part = np.bincount(np.cumsum(new) - 1, weights=value[order])
    first = np.flatnonzero(np.r_[True, np.diff(cell[starts]) != 0])
    most = np.repeat(np.maximum.reduceat(part, first), np.diff(np.r_[first, len(starts)]))
    leading = starts[part == most]  # in each cell by track number: the first one counts
    return leading[np.r_[True, np.diff(cell[leading]) != 0]]


def label(candidates: np.ndarray, truth: CoarseTruth) -> np.ndarray:
    """First truth value of each candidate's cell, float32 (N, 1); 0 where there is no truth."""
    row = rows_in(candidates, truth.coords)
    values = np.zeros((len(candidates), 1), np.float32)
    values[row >= 0, 0] = truth.values[row[row >= 0], 0]
    return values


@dataclass(frozen=True)
class CoarserTruth:
    """True sums of one event on a still coarser grid, and where the candidates lie in it.

    coords, values : int32 (M, 3), float32 (M, k), the coarser cells that hold true charge, sorted
    row : int32 (N,), row of `coords` that each candidate lies in, -1 where there is no true charge
    """

    coords: np.ndarray
    values: np.ndarray
    row: np.ndarray


def coarser(candidates: np.ndarray, truth: CoarseTruth, factors: Sequence[int]) -> CoarserTruth:
    """Truth summed over blocks of `factors` coarse cells, and the block of each candidate (N, 3)."""
    blocks = coarse(truth.coords, truth.values, factors)
    row = rows_in(np.floor_divide(candidates, np.asarray(factors, np.int32)), blocks.coords)
    return CoarserTruth(blocks.coords, blocks.values, row.astype(np.int32))


def missed(truth: CoarseTruth, candidates: np.ndarray) -> np.ndarray:
    """Mask (M,) of the true cells that are no candidate: what tiling lost."""
    return rows_in(truth.coords, candidates) < 0
