"""Boxes, random points and directions. Axes: x drift, y up, z along the beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, mm."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def volume(self) -> float:
        return float(np.prod(np.subtract(self.high, self.low)))

    def points(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, 3) uniform points."""
        return rng.uniform(self.low, self.high, (n, 3))

    def crossings(self, point: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances at which straight lines enter and leave; enter > leave for a line that misses."""
        with np.errstate(divide="ignore", invalid="ignore"):
            to_low = (np.array(self.low) - point) / direction
            to_high = (np.array(self.high) - point) / direction
        enter, leave = np.minimum(to_low, to_high), np.maximum(to_low, to_high)
        return np.nanmax(enter, axis=1), np.nanmin(leave, axis=1)


def cosmic(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 3) downward directions with density cos^2 of the zenith angle per solid angle, azimuth uniform."""
    cosine = rng.random(n) ** (1.0 / 3.0)
    azimuth = rng.uniform(0.0, 2.0 * np.pi, n)
    sine = np.sqrt(1.0 - cosine**2)
    return np.stack([sine * np.cos(azimuth), -cosine, sine * np.sin(azimuth)], axis=1)


def isotropic(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 3) unit vectors uniform over the sphere."""
    return normalised(rng.standard_normal((n, 3)))


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors along `vectors` (N, 3)."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def transverse(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that complete the unit vector `axis` (3,) to a right-handed frame."""
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    return first, np.cross(axis, first)
