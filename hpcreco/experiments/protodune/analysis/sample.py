"""Sums over the events of one sample (an event type): counts, score histograms, baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hpcreco.experiments.protodune.analysis.baselines import Scan, combinations
from hpcreco.experiments.protodune.analysis.curve import (
    N_BINS,
    Curve,
    area,
    curve_from_histograms,
    histogram,
    mean_curve,
    purity_efficiency,
)

#: lists of a sample with an entry per event, as `statistics` stores them
ARRAYS = ("scores", "true", "ghost", "true_charge", "ghost_charge", "missed", "missed_charge")


@dataclass(frozen=True)
class ScoredEvent:
    """Candidates of one event with what is known of them; N voxels, F features.

    scores:   (N,) predicted probability to be true
    features: (N, F) charge per plane
    truth:    (N,) bool, or None for data without truth
    charge:   (N,) the label, in the labels' unit, or None
    missed:   true voxels that are no candidates, None where the file does not tell; missed_charge: theirs
    """

    key: str
    scores: np.ndarray
    features: np.ndarray
    truth: np.ndarray | None = None
    charge: np.ndarray | None = None
    missed: int | None = None
    missed_charge: float = 0.0

    def reordered(self, columns: Sequence[int]) -> ScoredEvent:
        """The same event with its feature columns in this order."""
        return self if list(columns) == sorted(columns) else replace(self, features=self.features[:, columns])


@dataclass
class Sample:
    """What is remembered of a sample's events: histograms (51,) per event, so that everything else follows exactly."""

    name: str
    feature_names: tuple[str, ...] = ()
    comp_true: bool = False
    keys: list[str] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    ghost: list[np.ndarray] = field(default_factory=list)
    true_charge: list[np.ndarray] = field(default_factory=list)
    ghost_charge: list[np.ndarray] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    missed_charge: list[float] = field(default_factory=list)
    missed_known: bool = True
    scans: dict[str, Scan] = field(default_factory=dict)

    def add(self, event: ScoredEvent) -> None:
        """Add one event. Raises ValueError when events with and without truth are mixed."""
        if self.keys and self.has_truth != (event.truth is not None):
            raise ValueError(f"{event.key}: sample {self.name} mixes events with and without truth")
        self.keys.append(event.key)
        self.scores.append(histogram(event.scores))
        if event.truth is None:
            return
        truth, charge = event.truth, event.charge if event.charge is not None else event.truth
        self.true.append(histogram(event.scores[truth]))
        self.ghost.append(histogram(event.scores[~truth]))
        self.true_charge.append(histogram(event.scores[truth], weights=charge[truth]))
        self.ghost_charge.append(histogram(event.scores[~truth], weights=charge[~truth]))
        self.missed.append(event.missed or 0)
        self.missed_charge.append(event.missed_charge)
        self.missed_known &= event.missed is not None
        outside = (event.missed or 0) if self.comp_true else 0
        for name, score in combinations(event.features, self.feature_names).items():
            self.scans.setdefault(name, Scan()).add(score, truth, outside)

    @property
    def has_truth(self) -> bool:
        """Whether the events carry truth; an empty sample does not."""
        return bool(self.true)

    @property
    def n_events(self) -> int:
        """Events added, empty ones included."""
        return len(self.keys)

    def merge(self, other: Sample) -> None:
        """Add another's events behind these. Raises ValueError when only one of the two knows the truth."""
        if self.keys and other.keys and self.has_truth != other.has_truth:
            raise ValueError(f"{other.keys[0]}: sample {self.name} mixes events with and without truth")
        for name in ("keys", *ARRAYS):
            getattr(self, name).extend(getattr(other, name))
        self.missed_known &= other.missed_known
        for name, scan in other.scans.items():
            self.scans.setdefault(name, Scan()).merge(scan)

    def _outside(self, missed: Sequence[float], comp_true: bool | None) -> np.ndarray:
        """(events,) what the efficiency's denominator holds beside the true candidates."""
        return np.asarray(missed, np.float64) * (self.comp_true if comp_true is None else comp_true)

    def event_curves(
        self, weighted: bool = False, comp_true: bool | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Purity and efficiency (events, 50) of every event; of all true voxels with `comp_true` (default: own)."""
        if not self.has_truth:
            return np.zeros((0, N_BINS - 1)), np.zeros((0, N_BINS - 1))
        true, ghost = (self.true_charge, self.ghost_charge) if weighted else (self.true, self.ghost)
        missed = self._outside(self.missed_charge if weighted else self.missed, comp_true)
        return purity_efficiency(np.stack(true), np.stack(ghost), missed, weighted)

    def mean(self, weighted: bool = False, comp_true: bool | None = None) -> Curve:
        """The point-wise mean over events, the figure that is quoted."""
        return mean_curve(*self.event_curves(weighted, comp_true))

    def pooled(self, weighted: bool = False, comp_true: bool | None = None) -> Curve:
        """The curve of all voxels together; events with many voxels weigh more. Needs truth."""
        true, ghost = (self.true_charge, self.ghost_charge) if weighted else (self.true, self.ghost)
        missed = self._outside(self.missed_charge if weighted else self.missed, comp_true).sum()
        return curve_from_histograms(
            np.sum(true, axis=0), np.sum(ghost, axis=0), missed=float(missed), weighted=weighted
        )

    def event_auc(self) -> np.ndarray:
        """auc_pe (events,) of every event alone."""
        return area(*self.event_curves())

    def counts(self) -> Counts:
        """Voxel counts of the whole sample."""
        true, ghost = (int(sum(h.sum() for h in part)) for part in (self.true, self.ghost))
        candidates = int(sum(h.sum() for h in self.scores))
        return Counts(self.n_events, candidates, true, ghost, sum(self.missed) if self.missed_known else None)

    def kept(self, threshold_index: int) -> np.ndarray:
        """Candidates (events,) whose score exceeds threshold number `threshold_index`."""
        return np.array([h[threshold_index + 1 :].sum() for h in self.scores], np.int64)


@dataclass(frozen=True)
class Counts:
    """Voxels of a sample.

    `true` are candidates (n_TP_naive), `ghost` too (n_FP_naive); `missed` true voxels are not.
    """

    events: int
    candidates: int
    true: int
    ghost: int
    missed: int | None

    @property
    def truth(self) -> int | None:
        """n_T: all true voxels, candidates or not; None where the files do not tell."""
        return None if self.missed is None else self.true + self.missed

    @property
    def ghost_per_true(self) -> float:
        """Ghosts per true candidate; NaN without true ones."""
        return self.ghost / self.true if self.true else float("nan")

    @property
    def tiling_efficiency(self) -> float:
        """Share of the true voxels which are candidates; NaN if unknown."""
        return self.true / self.truth if self.truth else float("nan")
