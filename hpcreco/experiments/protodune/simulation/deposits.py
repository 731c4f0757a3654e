"""Energy deposits of an event as columns, and the random walk that turns particles into deposits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from hpcreco.compiling import compiled


@dataclass(frozen=True)
class Deposits:
    """Steps of all particles: `position` (N, 3) mm, the middle; `extent` (N, 3) mm, from its start to its end."""

    position: np.ndarray
    extent: np.ndarray
    energy: np.ndarray  # MeV
    electrons: np.ndarray  # escaping recombination
    time: np.ndarray  # us relative to the trigger
    track: np.ndarray  # int32
    pdg: np.ndarray  # int32

    def __len__(self) -> int:
        return len(self.energy)

    def take(self, rows: np.ndarray) -> Deposits:
        """The chosen rows (mask or indices)."""
        return Deposits(*(getattr(self, f.name)[rows] for f in fields(self)))


def concatenate(parts: Sequence[Deposits]) -> Deposits:
    """All deposits of `parts`, in order; no part gives no deposit."""
    if not parts:
        vectors, numbers, ids = np.zeros((0, 3)), np.zeros(0), np.zeros(0, np.int32)
        return Deposits(vectors, vectors, numbers, numbers, numbers, ids, ids)
    return Deposits(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Deposits)))


@dataclass(frozen=True)
class Walks:
    """Where (T) particles start and how they step; `first` (T+1) gives each particle's range of steps."""

    start: np.ndarray  # (T, 3) mm
    direction: np.ndarray  # (T, 3) unit vectors
    first: np.ndarray  # int64
    step: np.ndarray  # (N,) mm
    kink: np.ndarray  # (N,) rad, sigma of each projected angle


def of_lengths(start: np.ndarray, direction: np.ndarray, length: np.ndarray, step: float = 1.0) -> Walks:
    """Walks of given lengths in equal steps of about `step` mm, at least one each; no scattering yet."""
    n = np.maximum(np.rint(np.asarray(length) / step), 1).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(n)])
    return Walks(start, direction, first, np.repeat(length / n, n), np.zeros(first[-1]))


def walk(rng: np.random.Generator, walks: Walks) -> tuple[np.ndarray, np.ndarray]:
    """Middle (N, 3) and extent (N, 3) of every step; directions are kinked by `walks.kink` before each step."""
    angles = rng.standard_normal((len(walks.step), 2)) * walks.kink[:, None]
    return _walk(walks.start, walks.direction, walks.first, walks.step, angles)


@compiled()
def _walk(start, direction, first, step, angles):  # pragma: no cover - compiled
    middle = np.empty((len(step), 3))
    extent = np.empty((len(step), 3))
    for t in range(len(first) - 1):
        x, y, z = start[t]
        dx, dy, dz = direction[t]
        for i in range(first[t], first[t + 1]):
            a, b = angles[i]
            if a != 0.0 or b != 0.0:
                # two axes perpendicular to the direction, seeded by the axis it is least aligned with
                if abs(dz) < 0.7:
                    ux, uy, uz = -dy, dx, 0.0
                else:
                    ux, uy, uz = 0.0, -dz, dy
                norm = (ux * ux + uy * uy + uz * uz) ** 0.5
                ux, uy, uz = ux / norm, uy / norm, uz / norm
                vx, vy, vz = dy * uz - dz * uy, dz * ux - dx * uz, dx * uy - dy * ux
                dx, dy, dz = dx + a * ux + b * vx, dy + a * uy + b * vy, dz + a * uz + b * vz
                norm = (dx * dx + dy * dy + dz * dz) ** 0.5
                dx, dy, dz = dx / norm, dy / norm, dz / norm
            s = step[i]
            extent[i, 0], extent[i, 1], extent[i, 2] = s * dx, s * dy, s * dz
            middle[i, 0], middle[i, 1], middle[i, 2] = x + 0.5 * s * dx, y + 0.5 * s * dy, z + 0.5 * s * dz
            x, y, z = x + s * dx, y + s * dy, z + s * dz
    return middle, extent
