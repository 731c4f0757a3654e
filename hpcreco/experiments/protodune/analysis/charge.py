"""How well charge is measured: per voxel, event and particle.

The residual of a voxel is r = (reconstructed - true) / true. Bias is the mean, resolution the RMS about it and half the
width that holds the central 68 %, which the tails of r do not reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EDGES = np.linspace(-1.5, 3.0, 91)
"""(91,) of the residuals' histogram; what lies beyond is in the outermost of 92 bins."""
CHARGES = np.logspace(2, 6.5, 28)
"""Electrons: bins of the true charge."""


@dataclass(frozen=True)
class Residuals:
    """Bias, RMS and half the central 68 % of n residuals; NaN without any."""

    n: int
    bias: float
    rms: float
    half_width_68: float
    median: float


def residuals(reconstructed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(reconstructed - true) / true where true > 0, (n,)."""
    known = true > 0
    return (np.asarray(reconstructed, np.float64)[known] - true[known]) / true[known]


def summarise(r: np.ndarray) -> Residuals:
    """Figures of residuals (n,)."""
    r = np.asarray(r, np.float64)
    r = r[np.isfinite(r)]
    if not len(r):
        return Residuals(0, *(float("nan"),) * 4)
    low, middle, high = np.quantile(r, [0.16, 0.5, 0.84])
    return Residuals(len(r), float(r.mean()), float(r.std()), float((high - low) / 2), float(middle))


def histogram(r: np.ndarray) -> np.ndarray:
    """int64 (92,): bin 0 below the first edge, bin k in [EDGES[k-1], EDGES[k]), the last one above."""
    return np.bincount(np.searchsorted(EDGES, r, side="right"), minlength=len(EDGES) + 1)


def quantile(counts: np.ndarray, share: float) -> float:
    """Quantile of residuals from their histogram (92,), linear within a bin; NaN without any or beyond the edges."""
    total = counts.sum()
    if not total:
        return float("nan")
    below = np.cumsum(counts[:-1])  # up to each edge
    wanted = share * total
    if wanted < below[0] or wanted > below[-1]:
        return float("nan")
    return float(np.interp(wanted, below, EDGES))


def from_sums(n: float, total: float, squares: float, counts: np.ndarray) -> Residuals:
    """The same figures of residuals that were only counted: n, sum, sum of squares, histogram (92,)."""
    if not n:
        return Residuals(0, *(float("nan"),) * 4)
    bias = total / n
    rms = float(np.sqrt(max(squares / n - bias**2, 0.0)))
    low, middle, high = (quantile(counts, share) for share in (0.16, 0.5, 0.84))
    return Residuals(int(n), float(bias), rms, (high - low) / 2, middle)


def by_charge(true: np.ndarray, r: np.ndarray) -> np.ndarray:
    """int64 (28, 92): residual histograms by true charge; bin k from CHARGES[k] on, smaller charges join the first."""
    place = np.clip(np.searchsorted(CHARGES, true, side="right") - 1, 0, len(CHARGES) - 1)
    width = len(EDGES) + 1
    flat = np.bincount(
        place * width + np.searchsorted(EDGES, r, side="right"), minlength=len(CHARGES) * width
    )
    return flat.reshape(len(CHARGES), width)
