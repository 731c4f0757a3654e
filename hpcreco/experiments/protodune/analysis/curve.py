"""The purity-efficiency curve of scored voxels, from histograms which add up over batches, files and ranks.

A voxel is called true at threshold t when its score > t. With TP the true voxels among the P called ones, and
T all true ones,

    purity = TP / P (1 if P = 0)        efficiency = TP / T (1 if T = 0)
    auc_pe = sum_k (e_k - e_{k+1}) p_k  over the thresholds, with e = 0 behind the last one

auc_pe is the area under the purity-efficiency curve, not the ROC area: ghosts outnumber true voxels twenty to
one, so the latter is high for a network of no use.

Scores are binned by the number of thresholds they exceed. So `n` thresholds need `n + 1` bins: bin 0 holds
the scores which pass none of them, bin k those in (t_{k-1}, t_k]. The curve from such histograms is exact,
not an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.arange(50) / 50
"""(50,) 0, 0.02, ..., 0.98: the score thresholds of every curve of probabilities."""

N_BINS = len(THRESHOLDS) + 1
"""Bins of a score histogram; see `histogram`."""


@dataclass(frozen=True)
class Curve:
    """Purity and efficiency (n,) at thresholds (n,), and what they add up to."""

    thresholds: np.ndarray
    purity: np.ndarray
    efficiency: np.ndarray
    auc_pe: float
    break_even: float
    """Purity where it equals the efficiency; NaN if the curve does not get there."""

    @property
    def best(self) -> int:
        """Index of the threshold with the largest purity + efficiency (the first one of equals)."""
        return int(np.argmax(self.purity + self.efficiency))

    def at(self, threshold: float) -> int:
        """Index of the tabulated threshold nearest to `threshold`."""
        return int(np.argmin(np.abs(self.thresholds - threshold)))


def histogram(
    scores: np.ndarray, thresholds: np.ndarray = THRESHOLDS, weights: np.ndarray | None = None
) -> np.ndarray:
    """Histogram (n + 1,) of scores (N,) by the number of thresholds (n,), ascending, which each score exceeds.

    The comparison is made in float64: 0.02 stored as float32 is below 0.02 and does not pass it.
    Counts are int64; with weights (N,) the bins hold float64 sums of them.
    """
    bins = np.searchsorted(thresholds, np.asarray(scores, np.float64).ravel(), side="left")
    if weights is not None:
        weights = np.asarray(weights, np.float64).ravel()
    return np.bincount(bins, weights, minlength=len(thresholds) + 1)


def purity_efficiency(
    true_counts: np.ndarray, ghost_counts: np.ndarray, missed: np.ndarray | float = 0, weighted: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Purity and efficiency (..., n) at each threshold from score histograms (..., n + 1) of true and of ghost voxels.

    `missed` (...) counts true voxels which are no candidates: they enter the efficiency's denominator only.
    With `weighted` the histograms (and `missed`) hold sums of the truth value instead of counts, and both
    figures are 0 where the weight of the true positives is 0.
    """
    true_counts, ghost_counts = np.asarray(true_counts, np.float64), np.asarray(ghost_counts, np.float64)
    true_positive = _above(true_counts)
    called = true_positive + _above(ghost_counts)
    total = (true_counts.sum(-1) + missed)[..., None]
    empty = 0.0 if weighted else 1.0
    return _ratio(true_positive, called, empty), _ratio(true_positive, total, empty)


def curve_from_histograms(
    true_counts: np.ndarray,
    ghost_counts: np.ndarray,
    thresholds: np.ndarray | None = None,
    missed: float = 0,
    weighted: bool = False,
) -> Curve:
    """The curve of all voxels pooled, from score histograms (n + 1,) made by `histogram` and summed at will.

    Without `thresholds` the n thresholds are k / n: 51 bins give 0, 0.02, ..., 0.98.
    Raises ValueError if the histograms' shapes do not fit each other or the thresholds.
    """
    true_counts, ghost_counts = np.asarray(true_counts), np.asarray(ghost_counts)
    n = true_counts.shape[-1] - 1
    if thresholds is None:
        thresholds = np.arange(n) / max(n, 1)
    if true_counts.shape != ghost_counts.shape or true_counts.ndim != 1 or len(thresholds) != n or n < 1:
        raise ValueError(
            f"score histograms of shape {true_counts.shape} and {ghost_counts.shape} do not belong to "
            f"{len(thresholds)} thresholds: one bin more than thresholds was expected in both"
        )
    purity, efficiency = purity_efficiency(true_counts, ghost_counts, missed, weighted)
    break_even = pooled_break_even(true_counts, ghost_counts, missed)
    return Curve(thresholds, purity, efficiency, float(area(purity, efficiency)), break_even)


def mean_curve(purity: np.ndarray, efficiency: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> Curve:
    """The point-wise mean over events of curves (events, n); of no events, a curve of NaN."""
    if len(purity) == 0:
        nothing = np.full(len(thresholds), np.nan)
        return Curve(thresholds, nothing, nothing, np.nan, np.nan)
    p, e = purity.mean(0), efficiency.mean(0)
    return Curve(thresholds, p, e, float(area(p, e)), crossing(p, e))


def area(purity: np.ndarray, efficiency: np.ndarray) -> np.ndarray:
    """auc_pe (...) of curves (..., n): purity times the efficiency lost at the next threshold, summed."""
    following = np.concatenate([efficiency[..., 1:], np.zeros_like(efficiency[..., :1])], axis=-1)
    return ((efficiency - following) * purity).sum(-1)


def pooled_break_even(true_counts: np.ndarray, ghost_counts: np.ndarray, missed: float = 0) -> float:
    """Purity = efficiency, interpolated in counts.

    The two are equal where as many voxels are called true as there are, P = T. Within a bin TP is taken as
    linear in P (Davis and Goadrich, ICML 2006), which is right for a constant mix of true and ghost, while
    purity itself is not linear there. NaN if there is no true voxel or if even all candidates together are
    fewer than the true ones.
    """
    true_counts, ghost_counts = np.asarray(true_counts, np.float64), np.asarray(ghost_counts, np.float64)
    # from nothing called to everything called, so that P rises
    true_positive = np.concatenate([[0.0], np.cumsum(true_counts[::-1])])
    called = true_positive + np.concatenate([[0.0], np.cumsum(ghost_counts[::-1])])
    total = true_positive[-1] + missed
    if total == 0 or called[-1] < total:
        return float("nan")
    return float(np.interp(total, called, true_positive) / total)


def crossing(purity: np.ndarray, efficiency: np.ndarray) -> float:
    """Purity = efficiency of one curve (n,), linear between the two thresholds where it first gets there.

    NaN if it does not, or only by calling nothing true, where the purity is 1 by convention.
    """
    excess = purity - efficiency
    reached = np.flatnonzero((excess >= 0) & (efficiency > 0))
    if len(reached) == 0:
        return float("nan")
    k = int(reached[0])
    if excess[k] == 0:
        return float(purity[k])
    if k == 0 or excess[k - 1] >= 0:
        return float("nan")
    share = excess[k - 1] / (excess[k - 1] - excess[k])
    return float(purity[k - 1] + share * (purity[k] - purity[k - 1]))


def _above(counts: np.ndarray) -> np.ndarray:
    """(..., n) entries which pass each threshold, from bins (..., n + 1)."""
    return np.flip(np.cumsum(np.flip(counts, -1), axis=-1), -1)[..., 1:]


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
