"""Voxels of several TPCs in one frame, and the gap between neighbouring APAs bridged.

Where the voxels go is `joining`'s; here they are put together. Between two APAs along the beam lie 20 mm (2.5
coarse cells) where no wire sees anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcreco.experiments.protodune import joining
from hpcreco.experiments.protodune.geometry import PIXEL_SIZE
from hpcreco.experiments.protodune.voxels import keys, rows_in

LEAST = 0.01  # smaller interpolated values are dropped
FILLED = -1  # "TPC" of a voxel in the gap
MAX_GAP_MM = 100.0  # APAs further apart than this are no neighbours


class Merged(NamedTuple):
    """Voxels of one event in the common frame, in lexicographic order.

    coords : int32 (N, 3)
    values : float64 (N, k)
    tpc : int16 (N,), FILLED in a gap; of several TPCs at one voxel the first
    """

    coords: np.ndarray
    values: np.ndarray
    tpc: np.ndarray


@dataclass(frozen=True)
class Gap:
    """Cells between two faces along z: those with `low` < z < `high`, the last and first cells that wires see.

    `low_share` is the part of the cells at `low` that lies on the face, whose edge may cut them.
    """

    lower: int
    upper: int
    low: int
    high: int
    low_share: float


def gaps(frame: joining.Frame, z_mm: float) -> list[Gap]:
    """Gaps between faces of the same drift side that follow each other along z; cells measure `z_mm` along it."""
    found = []
    for lower, low_shift in zip(frame.faces, frame.shifts, strict=True):
        for upper, high_shift in zip(frame.faces, frame.shifts, strict=True):
            space = upper.r_min[2] - lower.r_max[2]
            same_side = (lower.face, lower.r_min[0]) == (upper.face, upper.r_min[0])
            if not same_side or not 0 < space < MAX_GAP_MM:
                continue
            cells = lower.pixels[1] * PIXEL_SIZE / z_mm
            n_z = math.ceil(cells - 1e-9)
            low = low_shift.voxels[2] + n_z - 1
            found.append(Gap(lower.tpc, upper.tpc, low, high_shift.voxels[2], cells - (n_z - 1)))
    return found


def merge(
    frame: joining.Frame,
    z_mm: float,
    voxels: Mapping[int, tuple[np.ndarray, np.ndarray]],
    additive: bool = True,
    least: float = LEAST,
) -> Merged:
    """Put `voxels`, TPC -> (coords (N, 3), values (N, k)) in its readout frame, together and bridge the gaps.

    Values are amounts that add up where two TPCs share a voxel, or, if not `additive`, scores of which the larger
    counts. In a gap each (x, y) goes linearly from the value in the last slice of one face to that in the first of
    the next, absent voxels counting as 0; cells in which no value exceeds `least` are dropped.
    """
    coords, values, tpcs = [], [], []
    for number, tpc in enumerate(frame.tpcs):
        local, own = voxels[tpc]
        coords.append(frame.place(number, local))
        values.append(np.asarray(own, np.float64))
        tpcs.append(np.full(len(local), tpc, np.int16))
    for gap in gaps(frame, z_mm):
        places = [frame.tpcs.index(tpc) for tpc in (gap.lower, gap.upper)]
        density = values[places[0]] / gap.low_share if additive else values[places[0]]
        filled = fill_gap(
            (coords[places[0]], density), (coords[places[1]], values[places[1]]), gap.low, gap.high, least
        )
        coords.append(filled[0])
        values.append(filled[1])
        tpcs.append(np.full(len(filled[0]), FILLED, np.int16))
    return _combined(np.concatenate(coords), np.concatenate(values), np.concatenate(tpcs), additive)


def fill_gap(
    lower: tuple[np.ndarray, np.ndarray],
    upper: tuple[np.ndarray, np.ndarray],
    low: int,
    high: int,
    least: float = LEAST,
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with `low` < z < `high` between the slice z = `low` of `lower` and z = `high` of `upper`.

    Both are (coords (N, 3), values (N, k)) in the common frame, their voxels unique.
    """
    edges = [(c[c[:, 2] == z], v[c[:, 2] == z]) for (c, v), z in ((lower, low), (upper, high))]
    sides = np.unique(np.concatenate([c[:, :2] for c, _ in edges]), axis=0)
    ends = [_values_at(sides, c[:, :2], v) for c, v in edges]
    coords, values = [np.zeros((0, 3), np.int32)], [np.zeros((0, lower[1].shape[1]))]
    for z in range(low + 1, high):
        weight = (z - low) / (high - low)
        between = (1 - weight) * ends[0] + weight * ends[1]
        kept = (between > least).any(axis=1)
        coords.append(np.c_[sides[kept], np.full(kept.sum(), z)].astype(np.int32))
        values.append(between[kept])
    return np.concatenate(coords), np.concatenate(values)


def _values_at(cells: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    row = rows_in(cells, known)
    found = np.zeros((len(cells), values.shape[1]))
    found[row >= 0] = values[row[row >= 0]]
    return found


def _combined(coords: np.ndarray, values: np.ndarray, tpc: np.ndarray, additive: bool) -> Merged:
    """One row per voxel."""
    (key,) = keys(coords)
    _, first, cell = np.unique(key, return_index=True, return_inverse=True)
    together = np.zeros((len(first), values.shape[1])) if additive else values[first].copy()
    (np.add if additive else np.maximum).at(together, cell, values)
    return Merged(coords[first], together, tpc[first])


def in_order(values: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """The columns of `values` (N, k), called `names`, in the order `wanted`: planes differ between faces."""
    return (
        values if tuple(names) == tuple(wanted) else values[:, [list(names).index(name) for name in wanted]]
    )
