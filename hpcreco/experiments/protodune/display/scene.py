"""What a display shows of one event: candidates, their scores and the truth, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

AXES = ("x (drift)", "y (vertical)", "z (beam)")


class DisplayError(ValueError):
    """A file or an event that cannot be displayed."""

    exit_code = 2


@dataclass(frozen=True)
class Scene:
    """Voxels of one event; the index of a voxel is (x, y, z), one voxel measures `cell` mm.

    candidates:  (N, 3) int32, tiled voxels; N = 0 for a bare truth file
    charge:      (N,) mean over the planes of the charge shared to the candidate
    scores:      (N,) predicted probability, None before inference
    is_true:     (N,) bool, None without truth
    true_charge: (N,) the label
    missed:      (M, 3) int32 true voxels which are no candidates; missed_charge (M,) theirs
    """

    title: str
    event_id: int
    cell: tuple[float, float, float]
    candidates: np.ndarray
    charge: np.ndarray
    scores: np.ndarray | None = None
    is_true: np.ndarray | None = None
    true_charge: np.ndarray | None = None
    missed: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    missed_charge: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    truth_unit: str = ""
    charge_unit: str = "e"
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def has_truth(self) -> bool:
        """Whether true voxels are known: no truth is not the same as an event without charge."""
        return self.is_true is not None

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

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First voxel (3,) and one past the last (3,) of the region to show, with a margin of 2 %.

        It holds all of the truth and 99.9 % of the candidates along each axis: a stray ghost does not shrink
        a shower to a dot.
        """
        corners = [
            self.truth[0],
            np.quantile(self.candidates, [0.001, 0.999], axis=0) if len(self.candidates) else [],
        ]
        points = np.concatenate([np.reshape(c, (-1, 3)) for c in corners])
        if len(points) == 0:
            return np.zeros(3, np.int64), np.ones(3, np.int64)
        low, high = np.floor(points.min(0)).astype(np.int64), np.ceil(points.max(0)).astype(np.int64) + 1
        margin = np.maximum(1, (high - low) // 50)
        return np.maximum(low - margin, 0), high + margin

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(n,) which of the voxels (n, 3) are in the region to show."""
        low, high = self.bounds()
        return np.all((points >= low) & (points < high), axis=1)


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
