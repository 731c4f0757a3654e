"""Charges of a slice as whole numbers of a small unit, so that no order of adding them changes a bit.

The unit is a power of two, chosen for each plane of each slice so that all charge together fits 62 bits and
that the charge of any one pixel is an exact float64. In a cosmic event it is about 1e-13 electrons per
thousandth of a pixel. Sums over several slices are float64, added in the order of the slices.
"""

from __future__ import annotations

import math

import numpy as np

from hpcreco.compiling import inner
from hpcreco.experiments.protodune.overlap import SHARE_UNIT

SUM_BITS, PIXEL_BITS = 61, 52  # each one less than there is room for, as charges are rounded to units
LARGEST = 1000  # 2 ** 1000 and its inverse are float64


@inner
def units(size: float, largest: float) -> float:
    """Units per electron for charges whose absolute sum is `size`, at most `largest` per thousandth of a pixel."""
    _, of_sum = math.frexp(size)
    _, of_pixel = math.frexp(largest * SHARE_UNIT)
    return math.ldexp(1.0, min(SUM_BITS - of_sum, PIXEL_BITS - of_pixel, LARGEST))


def cell_charges(tick: np.ndarray, cell: np.ndarray, charges: np.ndarray, n_cells: int) -> np.ndarray:
    """Charges float64 (N, P) of pixels in slices `tick` (N,), as tiling made them, summed to (n_cells, P).

    Bit for bit what tiling into these cells gives. The units of a slice are at least as fine as those it was tiled
    with: shared to the candidates, its charge is at most what it was.
    """
    slices, of_slice = np.unique(tick, return_inverse=True)
    parts, of_part = np.unique(of_slice * n_cells + cell, return_inverse=True)  # by slice, then by cell
    total = np.zeros((n_cells, charges.shape[1]))
    for p, charge in enumerate(charges.T):
        size = np.bincount(of_slice, weights=np.abs(charge), minlength=len(slices))
        per_electron = np.ldexp(1.0, np.minimum(SUM_BITS + 1 - np.frexp(size)[1], LARGEST))
        sums = np.zeros(len(parts), np.int64)
        np.add.at(sums, of_part, np.rint(charge * per_electron[of_slice]).astype(np.int64))
        np.add.at(total[:, p], parts % max(1, n_cells), sums / per_electron[parts // max(1, n_cells)])
    return total
