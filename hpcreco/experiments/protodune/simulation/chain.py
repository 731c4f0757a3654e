"""One event through the whole chain, for one TPC: particles, drift, signals, truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hpcreco.experiments.protodune.geometry import Geometry
from hpcreco.experiments.protodune.simulation import drift, generator, signals
from hpcreco.experiments.protodune.simulation.deposits import Deposits
from hpcreco.experiments.protodune.simulation.drift import Charges, DriftSettings, Localised, Truth
from hpcreco.experiments.protodune.simulation.event import Particle
from hpcreco.experiments.protodune.simulation.generator import Crop, Sky
from hpcreco.experiments.protodune.simulation.showers import ShowerShape
from hpcreco.experiments.protodune.simulation.signals import Samples, SignalSettings
from hpcreco.experiments.protodune.simulation.streams import Component, EventKey

VERSION = 1  # raise when equal settings give other numbers: finished files become stale


@dataclass(frozen=True)
class Settings:
    """Everything that decides an event besides its key and the geometry."""

    sky: Sky = field(default_factory=Sky)
    shower: ShowerShape = field(default_factory=ShowerShape)
    drift: DriftSettings = field(default_factory=DriftSettings)
    signals: SignalSettings = field(default_factory=SignalSettings)
    crop: Crop | None = None


class SimulatedEvent(NamedTuple):
    """One event as one TPC sees it; `charges` is what its wires collected, before signal processing."""

    samples: Samples
    truth: Truth
    particles: list[Particle]
    charges: Charges


class Response(NamedTuple):
    """What a TPC makes of deposits: its samples, the deposits it saw, and the charge on its wires."""

    samples: Samples
    seen: Localised
    charges: Charges


def simulate(key: EventKey, kind: str, geometry: Geometry, tpc: int, settings: Settings) -> SimulatedEvent:
    """The event `key` of `kind` as TPC `tpc` sees it. Its particles do not depend on the TPC."""
    if settings.crop is None:
        event = generator.generate(key, kind, geometry, settings.sky, settings.shower)
    else:
        event = generator.generate_cropped(key, geometry, tpc, settings.crop, settings.sky, settings.shower)
    response = respond(event.deposits, key, geometry, tpc, settings)
    seen = set(response.seen.deposits.track.tolist())
    particles = [particle for particle in event.particles if particle.track_id in seen]
    return SimulatedEvent(response.samples, drift.voxelise(response.seen), particles, response.charges)


def respond(deposits: Deposits, key: EventKey, geometry: Geometry, tpc: int, settings: Settings) -> Response:
    """Drift deposits to the wires of a TPC's APA and process the signals."""
    face = geometry.face(tpc)
    own = drift.localise(deposits, geometry, tpc, settings.crop)
    # U and V wires wrap around the APA: charge on the other face ends on the same channels
    apa_tpcs = [t for t in geometry.tpcs if geometry.face(t).apa == face.apa]
    parts = []
    for t in apa_tpcs:
        if t != tpc and settings.crop is not None:
            continue
        local = own if t == tpc else drift.localise(deposits, geometry, t)
        parts.append(drift.collect(local, geometry.face(t), settings.drift, key.stream(Component.DRIFT, t)))
    charges = drift.sum_charges(
        np.concatenate([part.key for part in parts]), np.concatenate([part.electrons for part in parts])
    )
    samples = signals.process(
        charges,
        signals.is_collection(tuple(geometry.face(t) for t in apa_tpcs)),
        settings.signals,
        key.stream(Component.NOISE, face.apa),
        dead_channels(key.seed, geometry, tpc, settings),
    )
    return Response(samples, own, charges)


def dead_channels(seed: int, geometry: Geometry, tpc: int, settings: Settings) -> np.ndarray:
    """Dead channels of the TPC's APA: of the detector, so the same for all files and events of a seed."""
    rng = EventKey(seed, 0, 0, 0).stream(Component.DEAD_CHANNELS, geometry.face(tpc).apa)
    return signals.dead_channels(rng, settings.signals.dead_fraction)
