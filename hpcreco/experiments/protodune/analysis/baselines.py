"""What one gets without a network: constant answers, and a cut on a single feature.

A network is worth its training only as far as it beats these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hpcreco.experiments.protodune.analysis.curve import area, crossing, purity_efficiency

MANTISSA_BITS = 5
"""Cuts are scanned in steps of 2^-5 of a power of two: 2 to 3 %."""
_SHIFT = 23 - MANTISSA_BITS
N_CUTS = 0x7F80_0000 >> _SHIFT


@dataclass(frozen=True)
class Constant:
    """The same answer for all candidates: accuracy and what makes it worthless."""

    name: str
    accuracy: float
    balanced_accuracy: float
    purity: float
    efficiency: float


def constants(n_true: int, n_ghost: int) -> tuple[Constant, Constant]:
    """All ghost, all true. NaN where there is no candidate."""
    n = n_true + n_ghost
    share = n_true / n if n else float("nan")
    return (
        Constant("all ghost", 1 - share, 0.5, 1.0, 0.0),
        Constant("all true", share, 0.5, share, 1.0),
    )


def combinations(features: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores (N,) by name from features (N, F): each column alone, and simple functions of all of them."""
    scores = {name: features[:, k] for k, name in enumerate(names)}
    if len(names) < 2:
        return scores
    positive = np.maximum(features, 0)
    least, most = positive.min(1), positive.max(1)
    both = "(" + ",".join(names) + ")"
    scores[f"min{both}"] = least
    scores[f"max{both}"] = most
    scores[f"sum{both}"] = positive.sum(1)
    scores[f"product{both}"] = np.cbrt(positive, dtype=np.float32).prod(
        1
    )  # the root keeps it in float32's range
    scores[f"min/max{both}"] = np.divide(least, most, out=np.zeros_like(least), where=most > 0)
    return scores


def cut_bins(scores: np.ndarray) -> np.ndarray:
    """Number of cuts (N,) in 0..N_CUTS which each score passes: cut k is `cut_value(k)`, passed by scores not below it.

    The cuts are the leading bits of float32, which are ordered like the numbers themselves: a fine scan over
    any scale without knowing it beforehand. Negative scores pass no cut but the one at 0, which all pass.
    """
    return np.maximum(np.asarray(scores, np.float32), 0).view(np.int32) >> _SHIFT


def cut_value(k: int) -> float:
    """The k-th cut."""
    return float(np.array(k << _SHIFT, np.int32).view(np.float32))


@dataclass
class Scan:
    """Purity and efficiency of "score >= cut" for one score, summed over events."""

    n_events: int = 0
    purity: np.ndarray = field(default_factory=lambda: np.zeros(N_CUTS))
    efficiency: np.ndarray = field(default_factory=lambda: np.zeros(N_CUTS))

    def add(self, scores: np.ndarray, truth: np.ndarray, missed: float = 0) -> None:
        """Add an event: scores (N,), truth (N,) bool, `missed` true voxels which are no candidates."""
        bins = cut_bins(scores)
        n = N_CUTS
        counts_true = np.bincount(bins[truth], minlength=n)
        counts_ghost = np.bincount(bins[~truth], minlength=n)
        # the first bin of `purity_efficiency` passes no cut; here every score passes the first
        purity, efficiency = purity_efficiency(
            np.insert(counts_true, 0, 0), np.insert(counts_ghost, 0, 0), missed
        )
        self.purity += purity
        self.efficiency += efficiency
        self.n_events += 1

    def merge(self, other: Scan) -> None:
        """Add another's events."""
        self.n_events += other.n_events
        self.purity = self.purity + other.purity
        self.efficiency = self.efficiency + other.efficiency

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Purity and efficiency (N_CUTS,), the mean over events; NaN without events."""
        if self.n_events == 0:
            return np.full(N_CUTS, np.nan), np.full(N_CUTS, np.nan)
        return self.purity / self.n_events, self.efficiency / self.n_events

    def result(self) -> tuple[float, float, float, float, float]:
        """auc_pe and break-even of the mean curve; the cut nearest to the break-even, its purity and efficiency."""
        purity, efficiency = self.curve()
        if self.n_events == 0:
            return (float("nan"),) * 5
        k = int(np.argmin(np.where(efficiency > 0, np.abs(purity - efficiency), np.inf)))
        auc, even = float(area(purity, efficiency)), crossing(purity, efficiency)
        return auc, even, cut_value(k), float(purity[k]), float(efficiency[k])
