"""Charge of runs of pixels without visiting a pixel: shares summed upward along every column.

The share of a strip in a run is a difference of two entries. Sums are whole numbers (see `exact`): where parts
are larger than what they sum to, they may leave 64 bits on the way and come back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcreco.compiling import compiled, inner
from hpcreco.experiments.protodune.overlap import SHARE_UNIT
from hpcreco.experiments.protodune.tiling.layout import Layout
from hpcreco.experiments.protodune.tiling.scratch import ONE

STRIP_BITS, WEIGHT_BITS = 15, 24
STRIP_MASK, WEIGHT_MASK = (1 << STRIP_BITS) - 1, (1 << WEIGHT_BITS) - 1


class Cuts(NamedTuple):
    """What lies below each y of a column, in thousandths of pixels; not filled for the guide plane.

    below : int64 (P, n_z, n_y + 1), packed: strip s of the cut, the weight of s below it, that of s + 1.
        Strips before s lie below as a whole, strips after s + 1 above.
    whole : int32 (P, n_z, S), weight of a strip in the column
    """

    below: np.ndarray
    whole: np.ndarray


def cuts(layout: Layout) -> Cuts:
    """Sum the shares of all columns upward."""
    n_planes, n_z, n_y = layout.strip.shape
    below = np.empty((n_planes, n_z, n_y + 1), np.int64)
    whole = np.empty((n_planes, n_z, layout.span.shape[1]), np.int32)
    _sum_upward(layout, below, whole)
    return Cuts(below, whole)


@compiled()
def _sum_upward(layout: Layout, below: np.ndarray, whole: np.ndarray) -> None:
    n_planes, n_z, n_y = layout.strip.shape
    for p in range(n_planes):
        if p == layout.guide:
            continue
        for z in range(n_z):
            total = whole[p, z]
            total[:] = 0
            for y in range(n_y + 1):
                s = layout.strip[p, z, min(y, n_y - 1)]
                below[p, z, y] = (
                    s
                    | (total[s] & WEIGHT_MASK) << STRIP_BITS
                    | (total[s + 1] & WEIGHT_MASK) << STRIP_BITS + WEIGHT_BITS
                )
                if y < n_y:
                    total[s] += layout.share[p, z, y]
                    total[s + 1] += SHARE_UNIT - layout.share[p, z, y]


@inner
def weigh(layout: Layout, cut: Cuts, runs: np.ndarray, n: int, weight: np.ndarray) -> None:
    """Add the shares of n runs of candidates to the total of every strip (P, S) they touch."""
    for p in range(len(weight)):
        sums, below, whole = weight[p], cut.below[p], cut.whole[p]
        strip, share = layout.strip[p], layout.share[p]
        for i in range(n):
            run = np.uint64(i)
            column, low, high = np.uint64(runs[run, 0]), np.uint64(runs[run, 1]), np.uint64(runs[run, 2])
            if p == layout.guide:  # the same in the whole column
                s, a = np.uint64(strip[column, 0]), np.int64(share[column, 0])
                sums[s] += a * np.int64(high - low)
                sums[s + ONE] += (SHARE_UNIT - a) * np.int64(high - low)
                continue
            start, stop = below[column, low], below[column, high]
            s, last = np.uint64(start & STRIP_MASK), np.uint64(stop & STRIP_MASK)
            sums[s] -= start >> STRIP_BITS & WEIGHT_MASK
            sums[s + ONE] -= start >> STRIP_BITS + WEIGHT_BITS
            while s < last:
                sums[s] += whole[column, s]
                s += ONE
            sums[last] += stop >> STRIP_BITS & WEIGHT_MASK
            sums[last + ONE] += stop >> STRIP_BITS + WEIGHT_BITS


@inner
def share_out(
    layout: Layout,
    cut: Cuts,
    dy: int,
    runs: np.ndarray,
    n: int,
    where: np.ndarray,
    ratio: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add the charge of n runs to coarse cells (P, N); ratio (P, S) is charge per thousandth of a pixel.

    `where` lists the cells of the runs, row by row, one run after another.
    """
    for q in range(len(ratio)):
        p, row = np.uint64(q), np.uint64(0)
        per_unit, below, whole, given = ratio[p], cut.below[p], cut.whole[p], sums[p]
        strip, share = layout.strip[p], layout.share[p]
        for i in range(n):
            run = np.uint64(i)
            column, start, high = np.uint64(runs[run, 0]), np.uint64(runs[run, 1]), np.uint64(runs[run, 2])
            edge = start - start % dy + dy
            if q == layout.guide:  # the same in the whole column
                s, a = np.uint64(strip[column, 0]), np.int64(share[column, 0])
                pixel = per_unit[s] * a + per_unit[s + ONE] * (SHARE_UNIT - a)
                while start < high:
                    stop = min(edge, high)
                    given[np.uint64(where[row])] += pixel * np.int64(stop - start)
                    start, edge, row = stop, edge + dy, row + ONE
                continue
            packed = below[column, start]
            s = np.uint64(packed & STRIP_MASK)
            before = per_unit[s] * (packed >> STRIP_BITS & WEIGHT_MASK) + per_unit[s + ONE] * (
                packed >> STRIP_BITS + WEIGHT_BITS
            )
            while start < high:
                start = min(edge, high)
                packed = below[column, start]
                last = np.uint64(packed & STRIP_MASK)
                while s < last:  # strips that end between the cuts
                    before -= per_unit[s] * whole[column, s]
                    s += ONE
                after = per_unit[s] * (packed >> STRIP_BITS & WEIGHT_MASK) + per_unit[s + ONE] * (
                    packed >> STRIP_BITS + WEIGHT_BITS
                )
                given[np.uint64(where[row])] += after - before
                before, edge, row = after, edge + dy, row + ONE
