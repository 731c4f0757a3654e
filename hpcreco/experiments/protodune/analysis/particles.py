"""Particles of the truth, the candidates that are theirs, their size and direction.

True cells with the same (track id, PDG) are one particle. A candidate belongs to the particle of the nearest true cell,
so that a particle has its own ghosts: those around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MIN_CANDIDATES, MIN_TRUE = 50, 20
"""Smaller particles say nothing about a curve."""

COSMIC, BEAM, UNKNOWN = 0, 1, -1
NAMES = {
    11: "e-", -11: "e+", 13: "mu-", -13: "mu+", 22: "gamma", 211: "pi+", -211: "pi-", 111: "pi0", 321: "K+",
    -321: "K-", 2112: "n", 2212: "p",
}  # fmt: skip


def name_of(pdg: int) -> str:
    """What the field calls a PDG code."""
    return NAMES.get(int(pdg), str(int(pdg)))


@dataclass(frozen=True)
class Groups:
    """K particles: ids (K,), PDG (K,), and the particle (M,) of each true cell."""

    track_id: np.ndarray
    pdg: np.ndarray
    of_cell: np.ndarray


def group(track_id: np.ndarray, pdg: np.ndarray) -> Groups:
    """Particles by (track id, PDG) of true cells (M,)."""
    pairs, inverse = np.unique(np.stack([track_id, pdg], 1), axis=0, return_inverse=True)
    return Groups(pairs[:, 0], pairs[:, 1], inverse.reshape(-1))


def owners(coords: np.ndarray, cells: np.ndarray, of_cell: np.ndarray) -> np.ndarray:
    """Particle (N,) of each candidate (N, 3): that of the nearest of the true cells (M, 3). Needs M > 0."""
    from scipy.spatial import cKDTree

    return of_cell[cKDTree(cells).query(coords)[1]]


@dataclass(frozen=True)
class Shape:
    """Axis of a cloud of points: angles in degrees, length along it in the points' unit, share of variance along it."""

    theta: float
    phi: float
    length: float
    linearity: float


def shape(points: np.ndarray) -> Shape:
    """Principal axis of points (N, 3), N >= 2.

    theta is the angle to the drift axis x, 0 to 180; phi the angle in the (z, y) plane from z towards y, 0 to 180: an
    axis has no sense of direction, and the one that goes up in y is taken.
    """
    centred = points - points.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axis = axes[0] * (-1.0 if axes[0, 1] < 0 or (axes[0, 1] == 0 and axes[0, 2] < 0) else 1.0)
    along = centred @ axis
    variance = values**2
    share = float(variance[0] / variance.sum()) if variance.sum() > 0 else float("nan")
    theta = float(np.degrees(np.arccos(np.clip(axis[0], -1, 1))))
    phi = float(np.degrees(np.arctan2(axis[1], axis[2])) % 180.0)
    return Shape(theta, phi, float(np.ptp(along)), share)


def tags(track_id: np.ndarray, table: Mapping[str, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """Beam, cosmic or unknown (K,) and kinetic energy (K,) MeV of particles, from the event's particles table."""
    origin = np.full(len(track_id), UNKNOWN, np.int32)
    energy = np.full(len(track_id), np.nan)
    if table is None or not len(table["track_id"]):
        return origin, energy
    order = np.argsort(table["track_id"], kind="stable")
    known = table["track_id"][order]
    at = np.minimum(np.searchsorted(known, track_id), len(known) - 1)
    found = known[at] == track_id
    origin[found] = table["beam"][order][at[found]]
    if "kinetic_energy" in table:
        energy[found] = table["kinetic_energy"][order][at[found]]
    return origin, energy
