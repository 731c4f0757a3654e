"""Electromagnetic showers as clouds of short electron segments around an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.simulation import deposits, directions, ionisation
from hpcreco.experiments.protodune.simulation.event import ELECTRON, Event

RADIATION_LENGTH = 140.0  # mm
CRITICAL_ENERGY = 32.0  # MeV


@dataclass(frozen=True)
class ShowerShape:
    """What tunes the compactness of showers."""

    stub: float = 60.0  # mm of minimum-ionising track before the cascade
    segment_min: float = 0.3  # MeV
    segment_mean: float = 9.0  # MeV added on average
    depth_scale: float = 2.0  # of the Gamma law of the depth, in radiation lengths
    core_radius: float = 12.0  # mm, mean
    halo_radius: float = 90.0
    core_fraction: float = 0.75
    core_angle: float = 4.0  # MeV: spread of the directions is this over the segment's energy, at most 1
    halo_angle: float = 12.0  # at most 1.5
    kink: float = 0.03  # rad per mm


def add_shower(
    event: Event,
    rng: np.random.Generator,
    start: np.ndarray,
    axis: np.ndarray,
    energy: float,
    time: float,
    shape: ShowerShape,
    beam: bool = False,
) -> None:
    """Add a shower of `energy` MeV from `start` (3,) mm along the unit vector `axis`; one track id for all of it."""
    track = event.enlist(ELECTRON, np.array([energy]), start[None], np.array([time]), beam)
    stub = min(shape.stub, energy / ionisation.MIP)
    segments = segment_energies(rng, energy - stub * ionisation.MIP, shape)
    n = len(segments)
    depth = rng.gamma(depth_shape(energy), shape.depth_scale, n) * RADIATION_LENGTH
    core = rng.random(n) < shape.core_fraction
    radius = rng.exponential(1.0, n) * np.where(core, shape.core_radius, shape.halo_radius)
    azimuth = rng.uniform(0.0, 2.0 * np.pi, n)
    first, second = directions.transverse(axis)
    place = start + (stub + depth)[:, None] * axis
    place += (radius * np.cos(azimuth))[:, None] * first + (radius * np.sin(azimuth))[:, None] * second
    angle, widest = np.where(core, shape.core_angle, shape.halo_angle), np.where(core, 1.0, 1.5)
    spread = np.minimum(widest, angle / segments)
    heading = directions.normalised(axis + spread[:, None] * rng.standard_normal((n, 3)))

    walks = deposits.of_lengths(
        np.concatenate([start[None], place]),
        np.concatenate([axis[None], heading]),
        np.concatenate([[stub], segments / ionisation.MIP]),
    )
    walks.kink[:] = shape.kink * np.sqrt(walks.step)
    owner = np.repeat(np.arange(n + 1), np.diff(walks.first))
    mean = np.concatenate([[stub * ionisation.MIP], segments]) / np.diff(walks.first)
    loss = mean[owner] * ionisation.fluctuation(rng, len(owner))
    event.deposit(rng, walks, loss, np.full(n + 1, time), np.repeat(track, n + 1), ELECTRON)


def segment_energies(rng: np.random.Generator, energy: float, shape: ShowerShape) -> np.ndarray:
    """Segment energies 0.3 + Exp(9) MeV, the last one cut so that their sum is `energy`."""
    if energy <= 0.0:
        return np.zeros(0)
    mean = shape.segment_min + shape.segment_mean
    drawn = np.zeros(0)
    while drawn.sum() < energy:
        n = int(1.2 * (energy - drawn.sum()) / mean) + 8
        drawn = np.concatenate([drawn, shape.segment_min + rng.exponential(shape.segment_mean, n)])
    total = np.cumsum(drawn)
    last = int(np.searchsorted(total, energy))
    segments = drawn[: last + 1].copy()
    segments[-1] -= total[last] - energy
    return segments[segments > 0.0]


def depth_shape(energy: float) -> float:
    """Shape of the Gamma law of the depth; soft showers, below the critical energy, start at once."""
    return max(1.0 + 0.5 * (np.log(energy / CRITICAL_ENERGY) - 0.5), 0.2)
