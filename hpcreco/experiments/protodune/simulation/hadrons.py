"""Protons and charged pions: straight tracks with kinks; pions interact once per metre."""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.protodune.simulation import deposits, directions, ionisation, showers
from hpcreco.experiments.protodune.simulation.event import PION, PROTON, Event

INTERACTION_LENGTH = 1000.0  # mm, pions
SECONDARIES = (2, 4)
SECONDARY_MIX = {"p": 0.4, "pi": 0.35, "shower": 0.25}
VISIBLE = 0.7  # of the energy at an interaction; neutrons and nuclei take the rest
GENERATIONS = 3
_PDG = {"p": PROTON, "pi": PION}


def add_hadron(
    event: Event,
    rng: np.random.Generator,
    particle: str,
    start: np.ndarray,
    direction: np.ndarray,
    kinetic: float,
    time: float,
    shape: showers.ShowerShape,
    beam: bool = False,
    generation: int = 0,
) -> None:
    """Add a proton ("p") or pion ("pi") of `kinetic` MeV; an interacting pion hands its energy to secondaries."""
    reach = ionisation.residual_range(particle, kinetic)
    free_path = rng.exponential(INTERACTION_LENGTH) if particle == "pi" else np.inf
    interacts = free_path < reach and generation < GENERATIONS
    length = free_path if interacts else reach
    walks = deposits.of_lengths(start[None], direction[None], np.array([length]))
    travelled = np.concatenate([[0.0], np.cumsum(walks.step)])
    energy = ionisation.kinetic_energy(particle, reach - travelled)
    walks.kink[:] = ionisation.kink(ionisation.momentum(particle, energy[:-1]), walks.step)
    loss = -np.diff(energy) * ionisation.fluctuation(rng, len(walks.step))
    pdg = _PDG[particle]
    track = event.enlist(pdg, np.array([kinetic]), start[None], np.array([time]), beam)
    middle, extent = event.deposit(rng, walks, loss, np.array([time]), track, pdg)
    if interacts:
        end = middle[-1] + extent[-1] / 2
        _interact(
            event, rng, end, directions.normalised(extent[-1:])[0], energy[-1], time, shape, beam, generation
        )


def _interact(
    event: Event,
    rng: np.random.Generator,
    vertex: np.ndarray,
    direction: np.ndarray,
    kinetic: float,
    time: float,
    shape: showers.ShowerShape,
    beam: bool,
    generation: int,
) -> None:
    """Share the visible energy among 2 to 4 secondaries that fly mostly forward."""
    n = int(rng.integers(SECONDARIES[0], SECONDARIES[1] + 1))
    shares = rng.dirichlet(np.ones(n)) * VISIBLE * kinetic
    names = tuple(SECONDARY_MIX)
    kinds = rng.choice(len(names), size=n, p=tuple(SECONDARY_MIX.values()))
    headings = directions.normalised(direction + 0.8 * rng.standard_normal((n, 3)))
    for kind, energy, heading in zip(kinds, shares, headings, strict=True):
        if energy < 1.0:
            continue
        if names[kind] == "shower":  # photons of a neutral pion
            showers.add_shower(event, rng, vertex, heading, energy, time, shape, beam)
        else:
            add_hadron(event, rng, names[kind], vertex, heading, energy, time, shape, beam, generation + 1)
