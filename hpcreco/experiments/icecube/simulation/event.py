"""One simulated event, from hypothesis to pulses."""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.pulses import EventRecord, bright_doms, in_gap, merged
from hpcreco.experiments.icecube.simulation import hypothesis, photons
from hpcreco.experiments.icecube.simulation.settings import Settings
from hpcreco.experiments.icecube.simulation.streams import EventKey, Part


def simulate(key: EventKey, settings: Settings, detector: Detector) -> EventRecord:
    """The event `key`: a function of its arguments alone."""
    drawn = hypothesis.draw(key.stream(Part.HYPOTHESIS), settings.hypothesis, detector)
    seed = hypothesis.smeared(key.stream(Part.SMEARING), drawn, settings.hypothesis, settings.smearing)
    return respond(key, drawn, settings, detector, seed)


def respond(
    key: EventKey,
    drawn: hypothesis.Drawn,
    settings: Settings,
    detector: Detector,
    seed: np.ndarray | None = None,
) -> EventRecord:
    """What the detector sees of a hypothesis that is given; the key decides all that is random about it."""
    readout = settings.readout
    shift = readout.jitter * key.stream(Part.READOUT).uniform(-1, 1)
    window = (readout.window[0] + shift, readout.window[1] + shift)
    found = photons.detected(
        key.stream(Part.PHOTONS), drawn.cascades, detector, settings.ice, settings.systematics
    )
    found = photons.with_readout_errors(key.stream(Part.CHARGES), found, readout)
    pulses = photons.joined(found, photons.noise(key.stream(Part.NOISE), detector, window, settings.noise))
    stored = np.float32(window)
    pulses = pulses[(pulses.time >= stored[0]) & (pulses.time <= stored[1])]
    dead_times = photons.gaps(
        key.stream(Part.GAPS), pulses, drawn.cascades, detector, settings.ice, window, settings.dead_time
    )
    gaps = merged(dead_times, (float(stored[0]), float(stored[1])))
    pulses, merged_doms = photons.grouped(pulses, readout.max_pulses)
    blind = in_gap(pulses.time, pulses.dom, gaps)
    pulses = pulses[~blind]
    excluded = detector.flat_dead.copy()
    if settings.bright is not None:
        bright = bright_doms(pulses, detector.n_doms, settings.bright.fraction, settings.bright.at_least)
        excluded[bright] = True
    return EventRecord(
        pulses=pulses,
        gaps=gaps,
        excluded=np.flatnonzero(excluded).astype(np.int32),
        window=window,
        ids=(key.seed, key.event, 0, 0),
        parameters=drawn.parameters,
        seeds=seed,
        cascades=drawn.cascades,
        numbers={"merged_doms": merged_doms, "removed_pulses": int(blind.sum())},
    )
