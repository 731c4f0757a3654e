"""An event being built: deposits and the list of particles that left them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hpcreco.experiments.protodune.simulation import deposits, ionisation
from hpcreco.experiments.protodune.simulation.deposits import Deposits, Walks

ELECTRON, MUON, PION, PROTON = 11, 13, 211, 2212


@dataclass(frozen=True)
class Particle:
    """One simulated particle; `beam` tells the beam particle and its daughters from cosmics."""

    track_id: int
    pdg: int
    kinetic_energy: float  # MeV
    start: tuple[float, float, float]  # mm, detector frame
    time: float  # us
    beam: bool


@dataclass
class Event:
    """Grows while components are added; track ids count from 1 in the order of addition."""

    parts: list[Deposits] = field(default_factory=list)
    particles: list[Particle] = field(default_factory=list)

    @property
    def deposits(self) -> Deposits:
        return deposits.concatenate(self.parts)

    def enlist(
        self, pdg: int, kinetic: np.ndarray, start: np.ndarray, time: np.ndarray, beam: bool
    ) -> np.ndarray:
        """Give track ids (T,) to T new particles."""
        first = len(self.particles) + 1
        for row, energy in enumerate(kinetic):
            x, y, z = start[row]
            particle = Particle(
                first + row, pdg, float(energy), (float(x), float(y), float(z)), float(time[row]), beam
            )
            self.particles.append(particle)
        return np.arange(first, first + len(kinetic), dtype=np.int32)

    def deposit(
        self,
        rng: np.random.Generator,
        walks: Walks,
        energy: np.ndarray,
        time: np.ndarray,
        track: np.ndarray,
        pdg: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Walk T particles, leaving `energy` (N,) MeV in their steps; returns middles and extents (N, 3)."""
        middle, extent = deposits.walk(rng, walks)
        steps = np.diff(walks.first)
        self.parts.append(
            Deposits(
                middle,
                extent,
                energy,
                ionisation.electrons(energy, walks.step),
                np.repeat(np.asarray(time, float), steps),
                np.repeat(np.asarray(track, np.int32), steps),
                np.full(len(middle), pdg, np.int32),
            )
        )
        return middle, extent
