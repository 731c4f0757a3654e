"""Voxels as arrays: `coords` int (N, 3), `values` (N,) or (N, k). Selecting, comparing, coarsening, projecting.

Selections are masks, so that one of them serves any number of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

DROP = -1  # factor of an axis that `downsample` sums over and leaves out: a projection


class VoxelError(ValueError):
    """Arrays that cannot be voxels, or factors that fit no axis."""

    exit_code = 2


def keys(*tables: np.ndarray) -> list[np.ndarray]:
    """One int64 per row of each (N, d) table: equal for equal cells, ordered as the axes are."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return [np.zeros(0, np.int64) for _ in tables]
    # axis by axis: numpy takes thirty times as long for the minima of all columns at once
    axes = range(filled[0].shape[1])
    low = [min(int(table[:, axis].min()) for table in filled) for axis in axes]
    size = [max(int(table[:, axis].max()) for table in filled) - low[axis] + 1 for axis in axes]
    found = []
    for table in tables:
        key = np.zeros(len(table), np.int64)
        for axis in axes:
            key *= size[axis]
            key += table[:, axis]
            key -= low[axis]
        found.append(key)
    return found


def rows_in(cells: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Row of `table` that holds each cell, -1 if none; the rows of `table` are unique, in any order."""
    wanted, known = keys(cells, table)
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    if (np.diff(known) > 0).all():
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    else:
        order = np.argsort(known, kind="stable")
        at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(known[at] == wanted, at, -1)


def in_box(
    coords: np.ndarray, low: Sequence[int | None] | None = None, high: Sequence[int | None] | None = None
) -> np.ndarray:
    """Mask (N,) of the voxels with low <= coord < high; None leaves a side open."""
    inside = np.ones(len(coords), bool)
    for axis in range(coords.shape[1]):
        if low is not None and low[axis] is not None:
            inside &= coords[:, axis] >= low[axis]
        if high is not None and high[axis] is not None:
            inside &= coords[:, axis] < high[axis]
    return inside


def in_list(coords: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Mask (N,) of the voxels that are among `cells` (M, 3), which may repeat."""
    cells = np.asarray(cells).reshape(-1, coords.shape[1])
    ours, theirs = keys(coords, cells)
    return np.isin(ours, theirs)


def at_least(values: np.ndarray, threshold: float, column: int = 0) -> np.ndarray:
    """Mask (N,) of the voxels whose value (in `column`, if there are several) is `threshold` or more."""
    return (values if values.ndim == 1 else values[:, column]) >= threshold


def limits(coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box [low, high) that holds all voxels; both zero without voxels."""
    if not len(coords):
        return np.zeros(coords.shape[1], np.int64), np.zeros(coords.shape[1], np.int64)
    return coords.min(axis=0).astype(np.int64), coords.max(axis=0).astype(np.int64) + 1


def set_values(
    coords: np.ndarray, values: np.ndarray, cells: np.ndarray, new: np.ndarray | float
) -> np.ndarray:
    """A copy of `values` (N, ...) with `new` (M, ...) or a number at those of `cells` (M, 3) that are voxels."""
    row = rows_in(cells, coords)
    changed = np.array(values)
    new = np.broadcast_to(np.asarray(new, changed.dtype), (len(row), *changed.shape[1:]))
    changed[row[row >= 0]] = new[row >= 0]
    return changed


class Comparison(NamedTuple):
    """A and B side by side, as row numbers: `both_a[i]` and `both_b[i]` are the same voxel."""

    only_a: np.ndarray  # A \ B
    both_a: np.ndarray  # A and B, for values of A
    both_b: np.ndarray  # the same voxels, for values of B
    only_b: np.ndarray  # B \ A


def compare(a: np.ndarray, b: np.ndarray) -> Comparison:
    """Which voxels two sets share; rows of `a` (N, 3) and of `b` (M, 3) are unique. Row numbers ascend in A."""
    at = rows_in(a, b)
    shared = np.flatnonzero(at >= 0)
    only_b = np.ones(len(b), bool)
    only_b[at[shared]] = False
    return Comparison(np.flatnonzero(at < 0), shared, at[shared], np.flatnonzero(only_b))


def downsample(
    coords: np.ndarray,
    values: np.ndarray,
    factors: Sequence[int],
    reduce: Literal["sum", "mean"] = "sum",
    keep_scale: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Coarser voxels, in lexicographic order, and the sum or mean of the values (float64) of those inside.

    A factor of `DROP` (-1) leaves its axis out: the result is a projection. With `keep_scale` a coarse voxel keeps
    the coordinate of its low corner on the fine grid instead of its own number. Raises VoxelError for other factors
    below 1.
    """
    if len(factors) != coords.shape[1] or any(f < 1 and f != DROP for f in factors):
        raise VoxelError(
            f"factors {tuple(factors)}: one per axis, each at least 1, or {DROP} to drop the axis"
        )
    kept = [axis for axis, factor in enumerate(factors) if factor != DROP]
    by = np.array([factors[axis] for axis in kept], np.int64)
    cells = np.floor_divide(coords[:, kept].astype(np.int64), by)
    (key,) = keys(cells)
    _, first, cell = np.unique(key, return_index=True, return_inverse=True)
    sums = _sums(cell, values, len(first))
    if reduce == "mean":
        sums /= np.bincount(cell, minlength=len(first)).reshape(-1, *[1] * (values.ndim - 1))
    return (cells[first] * (by if keep_scale else 1)).astype(np.int32), sums


def voxelise(
    points: np.ndarray, voxel: Sequence[float], values: np.ndarray, n_sum: int, n_mean: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) into voxels: the first `n_sum` columns of `values` (N, k) are summed, the next `n_mean` averaged.

    Every other column takes its most frequent value in the voxel (the smallest on a tie), as is right for numbers of
    tracks and particle codes. Returns coords int32 (M, 3) in lexicographic order and values float64 (M, k).
    """
    cells = np.floor(np.asarray(points, float) / np.asarray(voxel, float)).astype(np.int64)
    (key,) = keys(cells)
    _, first, cell = np.unique(key, return_index=True, return_inverse=True)
    out = np.zeros((len(first), values.shape[1]))
    added = n_sum + n_mean
    out[:, :added] = _sums(cell, values[:, :added], len(first))
    out[:, n_sum:added] /= np.bincount(cell, minlength=len(first))[:, None]
    for column in range(added, values.shape[1]):
        out[:, column] = _most_frequent(cell, values[:, column])
    return cells[first].astype(np.int32), out


def dense(
    coords: np.ndarray, values: np.ndarray, shape: Sequence[int], low: Sequence[int] | None = None
) -> np.ndarray:
    """Array of `shape` (+ columns) that begins at cell `low` (zeros), zero where no voxel is; repeated voxels add up.

    Raises VoxelError for a voxel outside.
    """
    at = coords.astype(np.int64) - (0 if low is None else np.asarray(low, np.int64))
    if len(at) and ((at < 0) | (at >= np.asarray(shape))).any():
        raise VoxelError(f"voxels {at.min(axis=0)} to {at.max(axis=0)} do not fit a grid of {tuple(shape)}")
    grid = np.zeros((*shape, *values.shape[1:]), values.dtype)
    np.add.at(grid, tuple(at.T), values)
    return grid


def sparse(grid: np.ndarray, axes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Coords int32 and values of the cells of a dense array whose value (any column) is not zero."""
    filled = grid if grid.ndim == axes else (grid != 0).any(axis=tuple(range(axes, grid.ndim)))
    at = np.nonzero(filled)
    return np.stack(at, axis=1).astype(np.int32), grid[at]


def _sums(cell: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, cell, values)
    return sums


def _most_frequent(cell: np.ndarray, value: np.ndarray) -> np.ndarray:
    pairs, count = np.unique(np.stack([cell, value.astype(float)], 1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -count, pairs[:, 0]))
    best = order[np.r_[True, np.diff(pairs[order, 0]) != 0]] if len(order) else order
    return pairs[best, 1]
