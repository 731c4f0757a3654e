"""Cosmic muons: through-going or stopping, with delta rays and Michel electrons."""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.protodune.simulation import deposits, directions, ionisation
from hpcreco.experiments.protodune.simulation.directions import Box
from hpcreco.experiments.protodune.simulation.event import ELECTRON, MUON, Event

STOPPING = 0.15  # fraction of the muons that stop inside
MICHEL = 0.70  # fraction of the stopping muons with a visible Michel electron
MICHEL_END = 52.83  # MeV
DELTA_LENGTH = 100.0  # mm of muon track per delta ray above DELTA_MIN
DELTA_MIN, DELTA_MAX = 1.0, 50.0  # MeV
DELTA_KINK = 0.3  # rad per mm
EXIT_MIN, EXIT_INDEX = 500.0, 1.7  # kinetic energy left when leaving: E^-2.7 above 500 MeV
TIME = (-2540.0, 2750.0)  # us: all times whose drifted charge can fall into the readout window


def add_cosmic_muons(
    event: Event, rng: np.random.Generator, n: int, box: Box, time: tuple[float, float] = TIME
) -> None:
    """Add `n` muons, each through a uniform point of `box`; stopping ones end there."""
    if n == 0:
        return
    direction = directions.cosmic(rng, n)
    point = box.points(rng, n)
    enter, leave = box.crossings(point, direction)
    stops = rng.random(n) < STOPPING
    when = rng.uniform(*time, n)
    exit_energy = EXIT_MIN * rng.random(n) ** (-1.0 / EXIT_INDEX)
    length = np.where(stops, -enter, leave - enter)
    add_muons(event, rng, point + enter[:, None] * direction, direction, length, stops, exit_energy, when)


def add_muons(
    event: Event,
    rng: np.random.Generator,
    start: np.ndarray,
    direction: np.ndarray,
    length: np.ndarray,
    stops: np.ndarray,
    exit_energy: np.ndarray,
    time: np.ndarray,
    beam: bool = False,
) -> None:
    """Add muons of given path length (T,) mm; those that do not stop leave with `exit_energy` MeV (T,)."""
    walks = deposits.of_lengths(start, direction, length)
    owner = np.repeat(np.arange(len(length)), np.diff(walks.first))
    n_steps = len(walks.step)
    # residual path after each step, from the step's number counted from the end of its track
    remaining = (walks.first[owner + 1] - np.arange(n_steps) - 1) * walks.step
    at_end = np.where(stops[owner], ionisation.kinetic_energy("mu", remaining), 0.0)
    at_start = np.where(stops[owner], ionisation.kinetic_energy("mu", remaining + walks.step), 0.0)
    mean_loss = np.where(stops[owner], at_start - at_end, ionisation.MIP * walks.step)
    kinetic = np.where(stops[owner], at_start, exit_energy[owner] + ionisation.MIP * (remaining + walks.step))
    walks.kink[:] = ionisation.kink(ionisation.momentum("mu", kinetic), walks.step)
    energy = mean_loss * ionisation.fluctuation(rng, n_steps)
    track = event.enlist(MUON, kinetic[walks.first[:-1]], start, time, beam)
    middle, extent = event.deposit(rng, walks, energy, time, track, MUON)
    _add_delta_rays(event, rng, middle, extent, owner, time, walks.step, beam)
    ends = walks.first[1:] - 1
    decays = np.flatnonzero(stops & (rng.random(len(stops)) < MICHEL))
    add_electrons(
        event, rng, (middle + extent / 2)[ends[decays]], directions.isotropic(rng, len(decays)),
        michel_energies(rng, len(decays)), np.asarray(time)[decays], beam,
    )  # fmt: skip


def _add_delta_rays(
    event: Event,
    rng: np.random.Generator,
    middle: np.ndarray,
    extent: np.ndarray,
    owner: np.ndarray,
    time: np.ndarray,
    step: np.ndarray,
    beam: bool,
) -> None:
    """Delta rays of 1 to 50 MeV start along the muon and curl up."""
    n = rng.poisson(step.sum() / DELTA_LENGTH)
    if n == 0:
        return
    rows = np.sort(rng.integers(0, len(step), n))
    kinetic = delta_energies(rng, n)
    walks = deposits.of_lengths(middle[rows], directions.normalised(extent[rows]), kinetic / ionisation.MIP)
    walks.kink[:] = DELTA_KINK * np.sqrt(walks.step)
    energy = _spend(rng, kinetic, walks)
    when = np.asarray(time)[owner[rows]]
    track = event.enlist(ELECTRON, kinetic, middle[rows], when, beam)
    event.deposit(rng, walks, energy, when, track, ELECTRON)


def add_electrons(
    event: Event,
    rng: np.random.Generator,
    start: np.ndarray,
    direction: np.ndarray,
    kinetic: np.ndarray,
    time: np.ndarray,
    beam: bool = False,
) -> None:
    """Electrons too soft to shower: straight steps of minimum-ionising loss, scattering more as they slow down."""
    if len(kinetic) == 0:
        return
    walks = deposits.of_lengths(start, direction, kinetic / ionisation.MIP)
    owner = np.repeat(np.arange(len(kinetic)), np.diff(walks.first))
    left = (walks.first[owner + 1] - np.arange(len(walks.step))) * walks.step * ionisation.MIP
    walks.kink[:] = ionisation.kink(ionisation.momentum("e", left), walks.step)
    energy = _spend(rng, kinetic, walks)
    track = event.enlist(ELECTRON, kinetic, start, time, beam)
    event.deposit(rng, walks, energy, time, track, ELECTRON)


def _spend(rng: np.random.Generator, kinetic: np.ndarray, walks: deposits.Walks) -> np.ndarray:
    """Fluctuating losses (N,) that add up to each particle's kinetic energy exactly."""
    steps = np.diff(walks.first)
    weight = ionisation.fluctuation(rng, len(walks.step)) + 1e-3
    total = np.add.reduceat(weight, walks.first[:-1])
    return weight * np.repeat(kinetic / total, steps)


def delta_energies(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) MeV from the spectrum 1/T^2 between DELTA_MIN and DELTA_MAX."""
    return DELTA_MIN / (1.0 - rng.random(n) * (1.0 - DELTA_MIN / DELTA_MAX))


def michel_energies(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) MeV from the Michel spectrum 2 x^2 (3 - 2 x), x = E / 52.83 MeV: inverse of its integral 2 x^3 - x^4."""
    u = rng.random(n)
    grid = np.linspace(0.0, 1.0, 1025)
    x = np.interp(u, 2 * grid**3 - grid**4, grid)
    for _ in range(3):  # Newton's steps bring the interpolation to machine precision
        x = np.clip(x - (2 * x**3 - x**4 - u) / np.maximum(6 * x**2 - 4 * x**3, 1e-9), 0.0, 1.0)
    return MICHEL_END * x
