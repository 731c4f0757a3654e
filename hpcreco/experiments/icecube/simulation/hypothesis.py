"""Draw what happens: the parameters of an event, and the cascades that shine because of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.light import SPEED_OF_LIGHT, direction
from hpcreco.experiments.icecube.pulses import CASCADE
from hpcreco.experiments.icecube.simulation.settings import Hypothesis, Smearing

_TOLERANCE = 1.0  # m beside the cylinder


class Drawn(NamedTuple):
    """parameters (p,) named by `parameter_names`; cascades (C, 7), the sources of light."""

    parameters: np.ndarray
    cascades: np.ndarray


def parameter_names(settings: Hypothesis) -> tuple[str, ...]:
    """Names of an event's parameters, those of the source that is fitted to it."""
    if settings.kind == "track":
        base = ("anchor_x", "anchor_y", "anchor_z", "zenith", "azimuth", "anchor_time")
        energies = tuple(f"cascade_{i:05d}_energy" for i in range(n_equidistant(settings)))
        return tuple(f"track_{name}" for name in (*base, *energies))
    return tuple(f"cascade_{name}" for name in (*CASCADE, *_further(settings)))


def seed_names(settings: Hypothesis) -> tuple[str, ...]:
    """Names of a start value's parameters: a particle's, and what the other cascades add."""
    return (*CASCADE, *_further(settings))


def _further(settings: Hypothesis) -> tuple[str, ...]:
    n = settings.n_cascades if settings.kind == "cascades" else 1
    return tuple(f"cascade_{i:05d}_{what}" for i in range(1, n) for what in ("energy", "distance"))


def n_equidistant(settings: Hypothesis) -> int:
    """Cascades of a track: at most `n_cascades`, no more than fit into the cylinder's diagonal."""
    diagonal = 2 * np.hypot(settings.cylinder_radius, settings.cylinder_half_height)
    return min(settings.n_cascades, max(1, int(diagonal / settings.spacing)))


def draw(rng: np.random.Generator, settings: Hypothesis, detector: Detector) -> Drawn:
    """Vertex uniform in the cylinder, direction isotropic, ln E and time uniform."""
    radius = settings.radius or 0.96 * detector.radius or 50.0
    half_height = settings.half_height or 1.1 * detector.half_height or 50.0
    rho, phi = radius * np.sqrt(rng.random()), 2 * np.pi * rng.random()
    z = half_height * (2 * rng.random() - 1)
    zenith, azimuth = np.arccos(2 * rng.random() - 1), 2 * np.pi * rng.random()
    time = rng.uniform(*settings.time)
    start = np.array([rho * np.cos(phi), rho * np.sin(phi), z, zenith, azimuth, 0.0, time])
    if settings.kind == "track":
        return _track(rng, settings, start)
    n = settings.n_cascades if settings.kind == "cascades" else 1
    energy = np.exp(rng.uniform(*np.log(settings.energy), size=n))
    distance = np.sort(rng.uniform(0.0, settings.max_distance, n - 1))
    start[5] = energy[0]
    further = np.stack([energy[1:], distance], axis=1).reshape(-1)
    return Drawn(np.concatenate([start, further]), in_a_row(start, energy, np.concatenate([[0.0], distance])))


def in_a_row(start: np.ndarray, energy: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(C, 7) cascades of `energy` (C,) at `distance` (C,) m along the flight from `start` (7,)."""
    cascades = np.repeat(start[None], len(energy), axis=0)
    cascades[:, :3] += distance[:, None] * direction(start[3], start[4])
    cascades[:, 5] = energy
    cascades[:, 6] += distance / SPEED_OF_LIGHT
    return cascades


def _track(rng: np.random.Generator, settings: Hypothesis, anchor: np.ndarray) -> Drawn:
    count = n_equidistant(settings)
    total = np.exp(rng.uniform(*np.log(settings.energy)))
    losses = np.exp(settings.loss_sigma * rng.standard_normal(count))
    first, last = crossing(anchor, settings)
    distance = first + (np.arange(count) + 0.5) * settings.spacing
    losses[distance > last + _TOLERANCE] = 0.0
    energy = total * losses / max(losses.sum(), np.finfo(float).tiny)
    parameters = np.concatenate([anchor[:5], anchor[6:], energy])
    return Drawn(parameters, in_a_row(anchor, energy, distance))


def crossing(anchor: np.ndarray, settings: Hypothesis) -> tuple[float, float]:
    """Where a line through `anchor` (7,) enters and leaves the cylinder, m along the flight from the anchor.

    A line that misses it: half a row of cascades around the point nearest to the origin.
    """
    position, u = anchor[:3], direction(anchor[3], anchor[4])
    radius, height = settings.cylinder_radius, settings.cylinder_half_height
    found = []
    across = u[0] ** 2 + u[1] ** 2
    if across > 1e-12:
        root = across * radius**2 - (position[0] * u[1] - position[1] * u[0]) ** 2
        if root >= 0:
            middle = -(position[0] * u[0] + position[1] * u[1])
            found += [(middle - np.sqrt(root)) / across, (middle + np.sqrt(root)) / across]
    if abs(u[2]) > 1e-12:
        found += [(-height - position[2]) / u[2], (height - position[2]) / u[2]]
    on_surface = []
    for length in found:
        point = position + length * u
        if np.hypot(*point[:2]) <= radius + _TOLERANCE and abs(point[2]) <= height + _TOLERANCE:
            on_surface.append(length)
    if on_surface:
        return min(on_surface), max(on_surface)
    nearest = -float(position @ u)
    half = 0.5 * settings.spacing * (n_equidistant(settings) - 1)
    return nearest - half, nearest + half


def smeared(rng: np.random.Generator, drawn: Drawn, settings: Hypothesis, widths: Smearing) -> np.ndarray:
    """(q,) a start value near the truth, its columns `seed_names`; angles stay angles, energies positive."""
    first = drawn.cascades[0].copy()
    if settings.kind == "track":
        first[:3], first[6] = drawn.parameters[:3], drawn.parameters[5]
        first[5] = drawn.cascades[:, 5].mean()
    normal = rng.standard_normal(7)
    first[:3] += widths.position * normal[:3]
    first[3:5] += np.radians(widths.angle) * normal[3:5]
    first[5] *= np.exp(widths.energy * normal[5])
    first[6] += widths.time * normal[6]
    if not 0.0 <= first[3] <= np.pi:  # over a pole
        first[3] = abs(first[3]) if first[3] < 0 else 2 * np.pi - first[3]
        first[4] += np.pi
    first[4] %= 2 * np.pi
    if settings.kind != "cascades":
        return first
    further = drawn.parameters[7:].reshape(-1, 2).copy()
    further[:, 0] *= np.exp(widths.energy * rng.standard_normal(len(further)))
    further[:, 1] = np.abs(further[:, 1] + widths.position * rng.standard_normal(len(further)))
    return np.concatenate([first, further.reshape(-1)])
