"""Score histograms by (y, z) segment: two halves of the height, and z in pieces of a quarter of an APA.

On the default coarse grid a segment is 374 x 72 cells (y, z): four of z in one TPC, twelve in three joined ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcreco.experiments.protodune.analysis.curve import N_BINS, THRESHOLDS

#: fine voxels along y and z in one segment
FINE_Y, FINE_Z = 1496, 288
N_Y = 2


def count(shape: Sequence[int], downsample: Sequence[int]) -> tuple[int, int]:
    """Segments along y and z of a grid of `shape` (x, y, z) cells."""
    return N_Y, max(1, -(-int(shape[2]) * int(downsample[2]) // FINE_Z))


def segment(coords: np.ndarray, downsample: Sequence[int], n: tuple[int, int]) -> np.ndarray:
    """Number iy * n_z + iz (N,) of each cell's segment, cells (N, 3); what lies outside joins the outermost."""
    y = np.clip(coords[:, 1].astype(np.int64) * downsample[1] // FINE_Y, 0, n[0] - 1)
    z = np.clip(coords[:, 2].astype(np.int64) * downsample[2] // FINE_Z, 0, n[1] - 1)
    return y * n[1] + z


def histograms(scores: np.ndarray, where: np.ndarray, n: tuple[int, int]) -> np.ndarray:
    """Score histograms int32 (n_y, n_z, 51) of candidates with scores (N,) in segments (N,)."""
    bins = np.searchsorted(THRESHOLDS, np.asarray(scores, np.float64), side="left")
    total = n[0] * n[1]
    flat = np.bincount(where * N_BINS + bins, minlength=total * N_BINS)
    return flat.reshape(*n, N_BINS).astype(np.int32)
