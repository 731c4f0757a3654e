"""What a display shows of one event: candidates, what a network says of them, and the truth, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hpcreco.experiments.protodune.voxels import rows_in

AXES = ("x (drift)", "y (vertical)", "z (beam)")
FAINT = 1000.0
"""Electrons: predicted charges above it are shown. A minimum-ionising track leaves about 50 000 in a cell of 8 mm."""


class DisplayError(ValueError):
    """A file or an event that cannot be displayed, or files that do not go together."""

    exit_code = 2


@dataclass(frozen=True)
class Border:
    """The box of one TPC, in voxels of the scene and where charge of the trigger time ends up; low, high (3,)."""

    name: str
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Voxels of one event; the index of a voxel is (x, y, z), one voxel measures `cell` mm.

    candidates:  (N, 3) int32, tiled voxels, or those a reconstruction found; N = 0 for a bare truth file
    charge:      (N,) mean over the planes of the charge shared to the candidate
    scores:      (N,) predicted probability, None without
    predicted:   (N,) predicted or solved electrons, None without
    is_true:     (N,) bool, None without truth
    true_charge: (N,) the label
    missed:      (M, 3) int32 true voxels which are no candidates; missed_charge (M,) theirs
    origin:      mm of the corner of voxel (0, 0, 0): zero in the readout frame of one TPC
    tpcs:        in whose frame the voxels are: one TPC's readout frame, or the common one of several
    source:      digest of the xy file they belong to, where that is known
    found_only:  the candidates are what a reconstruction kept, so all true voxels that are none were lost by it
    """

    title: str
    event_id: int
    cell: tuple[float, float, float]
    candidates: np.ndarray
    charge: np.ndarray
    scores: np.ndarray | None = None
    predicted: np.ndarray | None = None
    is_true: np.ndarray | None = None
    true_charge: np.ndarray | None = None
    missed: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    missed_charge: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    truth_unit: str = ""
    charge_unit: str = "e"
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tpcs: tuple[int, ...] = ()
    borders: tuple[Border, ...] = ()
    source: str = ""
    found_only: bool = False

    @property
    def has_truth(self) -> bool:
        """Whether true voxels are known: no truth is not the same as an event without charge."""
        return self.is_true is not None or len(self.missed) > 0

    @property
    def points(self) -> np.ndarray:
        """(N + M, 3) all voxels: candidates, then missed ones."""
        return np.concatenate([self.candidates, self.missed]).astype(np.int32)

    @property
    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (T, 3) and charge (T,) of all true voxels, candidates or not."""
        if self.is_true is None or self.true_charge is None:
            return self.missed, self.missed_charge
        coords = np.concatenate([self.candidates[self.is_true], self.missed])
        return coords, np.concatenate([self.true_charge[self.is_true], self.missed_charge])

    @property
    def judges(self) -> bool:
        """Whether something was predicted of the candidates."""
        return self.scores is not None or self.predicted is not None

    def called(self, threshold: float) -> np.ndarray:
        """(N,) which candidates are called true: score above `threshold`, or more than FAINT electrons predicted."""
        if self.scores is not None:
            return self.scores.astype(float) > threshold
        if self.predicted is not None:
            return self.predicted > FAINT
        return np.ones(len(self.candidates), bool)

    def within(self, candidates: np.ndarray, missed: np.ndarray) -> Scene:
        """Only the candidates (N,) and missed voxels (M,) of these masks."""
        per_candidate = ("candidates", "charge", "scores", "predicted", "is_true", "true_charge")
        kept = {name: getattr(self, name) for name in per_candidate if getattr(self, name) is not None}
        return replace(
            self,
            **{name: values[candidates] for name, values in kept.items()},
            missed=self.missed[missed],
            missed_charge=self.missed_charge[missed],
        )

    def with_truth_of(self, other: Scene) -> Scene:
        """These voxels judged by another scene's truth, for reconstructions whose files hold none."""
        coords, charge = other.truth
        row = rows_in(self.candidates, coords)
        label = np.zeros(len(self.candidates), np.float32)
        label[row >= 0] = charge[row[row >= 0]]
        lost = rows_in(coords, self.candidates) < 0
        return replace(
            self,
            is_true=row >= 0,
            true_charge=label,
            missed=coords[lost],
            missed_charge=charge[lost],
            truth_unit=other.truth_unit,
        )


@dataclass(frozen=True)
class WireImage:
    """Waveforms of one event as samples: tick (S,), channel (S,), value (S,)."""

    title: str
    event_id: int
    n_ticks: int
    n_channels: int
    tick: np.ndarray
    channel: np.ndarray
    value: np.ndarray
    planes: tuple[tuple[str, int, int], ...] = ()
    """Name, first channel and one past the last of each plane."""
    tpc: int | None = None
    dead: tuple[int, ...] = ()
    """Channels known to give no signal."""
