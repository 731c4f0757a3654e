"""Which particles an event holds: cosmic rays over the whole detector, the beam particle, or one particle alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.geometry import DRIFT_SPEED, SIM_T0, Geometry, seeing_tpcs
from hpcreco.experiments.protodune.simulation import directions, hadrons, ionisation, muons, showers
from hpcreco.experiments.protodune.simulation.deposits import Deposits
from hpcreco.experiments.protodune.simulation.directions import Box
from hpcreco.experiments.protodune.simulation.event import ELECTRON, Event
from hpcreco.experiments.protodune.simulation.showers import ShowerShape
from hpcreco.experiments.protodune.simulation.streams import Component, EventKey

BEAM_START = np.array([-302.5, 4222.0, 0.0])
BEAM_DIRECTION = np.array([-0.187, -0.195, 0.963]) / np.linalg.norm([-0.187, -0.195, 0.963])
BEAM_MOMENTUM, BEAM_SPREAD = 1000.0, 0.05
BEAM_MIX = {"pi": 0.40, "p": 0.25, "e": 0.25, "mu": 0.10}
SINGLE = {"Electron": "e", "Mu": "mu", "Pion": "pi"}
KINDS = ("BeamCosmic", "Electron", "Mu", "Pion")


@dataclass(frozen=True)
class Sky:
    """Mean numbers of cosmic components in the whole detector, and the times they spread over."""

    muons: float = 50.0  # 11 of them leave 20 or more true cells in TPC 1's readout window
    showers: float = 116.0  # 11 per TPC inside the readout window
    shower_energy: float = 30.0  # MeV, mean
    soft: float = 9520.0  # 900 per TPC inside the readout window
    soft_min: float = 0.1  # MeV
    soft_mean: float = 0.6  # MeV added on average
    beam: bool = True


@dataclass(frozen=True)
class Crop:
    """A box of the readout frame, (x, y, z) mm, that an event is confined to."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def in_detector(self, geometry: Geometry, tpc: int) -> Box:
        """The same box in the detector frame, for deposits at the trigger time."""
        face = geometry.face(tpc)
        shift = DRIFT_SPEED * SIM_T0
        if face.face == 1:
            x = (face.r_max[0] - (self.high[0] - shift), face.r_max[0] - (self.low[0] - shift))
        else:
            x = (face.r_min[0] + self.low[0] - shift, face.r_min[0] + self.high[0] - shift)
        rest = [(face.r_min[i] + self.low[i], face.r_min[i] + self.high[i]) for i in (1, 2)]
        low, high = zip(x, *rest, strict=True)
        return Box(low, high)


def detector_box(geometry: Geometry) -> Box:
    """The box around all drift volumes that see drifting charge."""
    faces = [geometry.face(tpc) for tpc in seeing_tpcs(geometry)]
    low = np.min([face.r_min for face in faces], axis=0)
    high = np.max([face.r_max for face in faces], axis=0)
    return Box(tuple(low), tuple(high))


def generate(key: EventKey, kind: str, geometry: Geometry, sky: Sky, shape: ShowerShape) -> Event:
    """All particles of one event of `kind` (BeamCosmic, Electron, Mu, Pion), the same for every TPC."""
    event = Event()
    box = detector_box(geometry)
    if kind == "BeamCosmic":
        _add_sky(event, key, box, sky, shape)
        if sky.beam:
            rng = key.stream(Component.BEAM)
            particle = tuple(BEAM_MIX)[rng.choice(len(BEAM_MIX), p=tuple(BEAM_MIX.values()))]
            add_beam_particle(event, rng, particle, box, shape)
    else:
        add_beam_particle(event, key.stream(Component.BEAM), SINGLE[kind], box, shape)
    return event


def generate_cropped(
    key: EventKey, geometry: Geometry, tpc: int, crop: Crop, sky: Sky, shape: ShowerShape
) -> Event:
    """One muon through, and one shower in, a small box of one TPC: quick to tile and to learn from."""
    event = Event()
    box = crop.in_detector(geometry, tpc)
    muons.add_cosmic_muons(event, key.stream(Component.MUONS), 1, box, time=(0.0, 0.0))
    rng = key.stream(Component.SHOWERS)
    energy = 10.0 + rng.exponential(sky.shower_energy)
    showers.add_shower(event, rng, box.points(rng, 1)[0], directions.isotropic(rng, 1)[0], energy, 0.0, shape)
    return event


def add_beam_particle(
    event: Event, rng: np.random.Generator, particle: str, box: Box, shape: ShowerShape
) -> None:
    """One particle of 1 GeV/c (+- 5 %) that enters at the beam window at the trigger time."""
    p = BEAM_MOMENTUM * (1.0 + BEAM_SPREAD * rng.standard_normal())
    mass = ionisation.MASS[particle]
    kinetic = np.sqrt(p * p + mass * mass) - mass
    if particle == "e":
        showers.add_shower(event, rng, BEAM_START, BEAM_DIRECTION, kinetic, 0.0, shape, beam=True)
    elif particle == "mu":
        _, leave = box.crossings(BEAM_START[None], BEAM_DIRECTION[None])
        reach = ionisation.residual_range("mu", kinetic)
        length = min(reach, leave[0])
        exit_energy = kinetic - ionisation.MIP * length
        muons.add_muons(
            event, rng, BEAM_START[None], BEAM_DIRECTION[None], np.array([length]), np.array([reach <= leave[0]]),
            np.array([exit_energy]), np.zeros(1), beam=True,
        )  # fmt: skip
    else:
        hadrons.add_hadron(event, rng, particle, BEAM_START, BEAM_DIRECTION, kinetic, 0.0, shape, beam=True)


def _add_sky(event: Event, key: EventKey, box: Box, sky: Sky, shape: ShowerShape) -> None:
    rng = key.stream(Component.MUONS)
    muons.add_cosmic_muons(event, rng, rng.poisson(sky.muons), box)
    rng = key.stream(Component.SHOWERS)
    n = rng.poisson(sky.showers)
    energy, when = rng.exponential(sky.shower_energy, n), rng.uniform(*muons.TIME, n)
    for row, (place, axis) in enumerate(zip(box.points(rng, n), directions.isotropic(rng, n), strict=True)):
        showers.add_shower(event, rng, place, axis, energy[row], when[row], shape)
    _add_soft_deposits(event, key.stream(Component.SOFT), box, sky)


def _add_soft_deposits(event: Event, rng: np.random.Generator, box: Box, sky: Sky) -> None:
    """Radioactive decays and neutron captures: points of energy, uniform in space and time, one track each."""
    n = rng.poisson(sky.soft)
    place, when = box.points(rng, n), rng.uniform(*muons.TIME, n)
    energy = sky.soft_min + rng.exponential(sky.soft_mean, n)
    track = event.enlist(ELECTRON, energy, place, when, False)
    length = energy / ionisation.MIP
    event.parts.append(
        Deposits(
            place, length[:, None] * directions.isotropic(rng, n), energy, ionisation.electrons(energy, length),
            when, track, np.full(n, ELECTRON, np.int32),
        )
    )  # fmt: skip
