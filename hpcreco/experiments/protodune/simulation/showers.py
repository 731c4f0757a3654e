"""Electromagnetic showers as clouds of short electron segments around an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.simulation import deposits, directions, ionisation
from hpcreco.experiments.protodune.simulation.event import ELECTRON, Event

RADIATION_LENGTH = 140.0  # mm
CRITICAL_ENERGY = 32.0  # MeV


@dataclass(frozen=True)
class Component:
    """One part of a cascade: segments of energy ``energy_min + Exp(energy_mean)`` MeV around the axis."""

    share: float  # of the energy of the cascade
    energy_min: float
    energy_mean: float
    radius: float  # mm, mean distance to the axis
    angle: float  # MeV; directions spread by this over the segment's energy, at most `widest`
    widest: float


@dataclass(frozen=True)
class ShowerShape:
    """What tunes the compactness of showers: dense core, wide halo, and soft photons that stop far away."""

    stub: float = 60.0  # mm of minimum-ionising track before the cascade
    depth_scale: float = 1.7  # of the Gamma law of the depth, in radiation lengths
    kink: float = 0.03  # rad per mm
    parts: tuple[Component, ...] = (
        Component(share=0.85, energy_min=0.3, energy_mean=9.0, radius=2.0, angle=0.5, widest=1.0),
        Component(share=0.10, energy_min=0.3, energy_mean=9.0, radius=80.0, angle=8.0, widest=1.5),
        Component(share=0.05, energy_min=0.1, energy_mean=0.22, radius=200.0, angle=100.0, widest=10.0),
    )


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
    cascade = energy - stub * ionisation.MIP
    places, headings, energies = [start[None]], [axis[None]], [np.array([stub * ionisation.MIP])]
    for part in shape.parts:
        spent = segment_energies(rng, part.share * cascade, part.energy_min, part.energy_mean)
        n = len(spent)
        depth = stub + rng.gamma(depth_shape(energy), shape.depth_scale, n) * RADIATION_LENGTH
        places.append(start + depth[:, None] * axis + _around(rng, axis, rng.exponential(part.radius, n)))
        spread = np.minimum(part.widest, part.angle / spent)
        headings.append(directions.normalised(axis + spread[:, None] * rng.standard_normal((n, 3))))
        energies.append(spent)
    segments = np.concatenate(energies)
    walks = deposits.of_lengths(np.concatenate(places), np.concatenate(headings), segments / ionisation.MIP)
    walks.kink[:] = shape.kink * np.sqrt(walks.step)
    steps = np.diff(walks.first)
    loss = np.repeat(segments / steps, steps) * ionisation.fluctuation(rng, len(walks.step))
    event.deposit(rng, walks, loss, np.full(len(segments), time), np.repeat(track, len(segments)), ELECTRON)


def _around(rng: np.random.Generator, axis: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Offsets (n, 3) at given distances from the axis, at uniform azimuth."""
    azimuth = rng.uniform(0.0, 2.0 * np.pi, len(radius))
    first, second = directions.transverse(axis)
    return (radius * np.cos(azimuth))[:, None] * first + (radius * np.sin(azimuth))[:, None] * second


def segment_energies(rng: np.random.Generator, energy: float, minimum: float, mean: float) -> np.ndarray:
    """Segment energies ``minimum + Exp(mean)`` MeV, the last one cut so that their sum is `energy`."""
    drawn = np.zeros(0)
    while drawn.sum() < energy:
        n = int(1.2 * (energy - drawn.sum()) / (minimum + mean)) + 8
        drawn = np.concatenate([drawn, minimum + rng.exponential(mean, n)])
    if energy <= 0.0:
        return drawn
    total = np.cumsum(drawn)
    last = int(np.searchsorted(total, energy))
    segments = drawn[: last + 1].copy()
    segments[-1] -= total[last] - energy
    return segments[segments > 0.0]


def depth_shape(energy: float) -> float:
    """Shape of the Gamma law of the depth; soft showers, below the critical energy, start at once."""
    return max(1.0 + 0.5 * (np.log(energy / CRITICAL_ENERGY) - 0.5), 0.2)
