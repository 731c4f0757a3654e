"""Work space of the compiled tiling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcreco.compiling import inner
from hpcreco.experiments.protodune.tiling.layout import Grid, Layout

ONE = np.uint64(1)  # unsigned indices spare the compiled loops the test for negative ones


class Scratch(NamedTuple):
    """Work space of one worker; between slices all flags, weights, ratios and slots are in their first state."""

    lit: np.ndarray  # uint8 (P, S), active strips
    words: np.ndarray  # uint64 (P, S / WORD), the same memory
    groups: np.ndarray  # int32 (P, S, 2), first and last of neighbouring active strips, ascending
    n_groups: np.ndarray  # int32 (P,)
    touched: np.ndarray  # int32 (P, S), strips that a candidate can touch, ascending
    n_touched: np.ndarray  # int32 (P,)
    outline: np.ndarray  # int32 (S, 2), y range of each group of a plane over some columns
    weight: np.ndarray  # int64 (C + 1,), thousandths of candidate pixels of a channel
    charge: np.ndarray  # float64 (C + 1,), charge per thousandth
    strip_weight: np.ndarray  # int64 (P, S), the same by strip
    strip_ratio: np.ndarray  # int64 (P, S)
    size: np.ndarray  # float64 (P,), absolute charge of a slice
    largest: np.ndarray  # float64 (P,), largest charge per thousandth
    units: np.ndarray  # float64 (P,), units per electron, see `exact`
    slot: np.ndarray  # int32 (coarse y * coarse z,), position of a touched cell, -1 if untouched
    cells: np.ndarray  # uint32 (2, same length), y and z of the touched cells
    order: np.ndarray  # uint32 (2, same length), their ascending order, and that by z alone
    begin: np.ndarray  # uint32 (coarse y or z, and one more), where in it those of each y or z begin
    sums: np.ndarray  # int64 (P, same length), units of charge in each touched cell from one slice
    total: np.ndarray  # float64 (P, same length), its charge from all slices


def lone(n: int, dtype: type, value: float = 0) -> np.ndarray:
    """A short array that shares no cache line with other memory: threads that write to one line wait for each other."""
    margin = 128 // np.dtype(dtype).itemsize
    return np.full(n + 2 * margin, value, dtype)[margin : margin + n]


def scratch(layout: Layout, grid: Grid) -> Scratch:
    """Allocate the work space of one worker."""
    n_planes, n_strips, n_z = layout.span.shape[:3]
    n_y = layout.strip.shape[2]
    cells_y, cells_z = (n_y + grid.dy - 1) // grid.dy, (n_z + grid.dz - 1) // grid.dz
    n_cells = cells_y * cells_z
    lit = layout.always.astype(np.uint8)
    return Scratch(
        lit,
        lit.view(np.uint64),
        np.zeros((n_planes, n_strips, 2), np.int32),
        lone(n_planes, np.int32),
        np.zeros((n_planes, n_strips), np.int32),
        lone(n_planes, np.int32),
        np.zeros((n_strips, 2), np.int32),
        np.zeros(len(layout.plane_of) + 1, np.int64),
        np.zeros(len(layout.plane_of) + 1),
        np.zeros((n_planes, n_strips), np.int64),
        np.zeros((n_planes, n_strips), np.int64),
        lone(n_planes, np.float64),
        lone(n_planes, np.float64),
        lone(n_planes, np.float64, 1),
        np.full(n_cells, -1, np.int32),
        np.empty((2, n_cells), np.uint32),  # memory that is never touched costs nothing
        np.empty((2, n_cells), np.uint32),
        np.zeros(max(cells_y, cells_z) + 1, np.uint32),
        np.empty((n_planes, n_cells), np.int64),
        np.empty((n_planes, n_cells)),
    )


@inner
def room(rows: np.ndarray, n: int) -> np.ndarray:
    """A copy of `rows` with room for twice n rows."""
    larger = np.empty((2 * n, *rows.shape[1:]), rows.dtype)
    for i in range(rows.size):  # assigning a slice takes numba 3 s to compile
        larger.flat[i] = rows.flat[i]
    return larger
