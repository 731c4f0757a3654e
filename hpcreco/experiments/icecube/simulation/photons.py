"""Photons of cascades and of noise, and what a DOM's readout makes of them."""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.icecube import light
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.light import Ice
from hpcreco.experiments.icecube.pulses import Gaps, Pulses, numbers
from hpcreco.experiments.icecube.simulation.settings import DeadTime, Readout

_SPE_WIDTH, _SPE_THRESHOLD = 0.3, 0.2  # of single photo-electron charges, PE


def detected(
    rng: np.random.Generator, cascades: np.ndarray, detector: Detector, ice: Ice, systematics: float
) -> Pulses:
    """The photons of cascades (C, 7) that the DOMs detect: counts Poisson around the expectation.

    With `systematics` = α the expectation of a DOM is multiplied by a Gamma factor of mean 1 and variance α, which
    makes its count negative binomial: mean μ, variance μ + αμ².
    """
    positions = detector.flat_positions
    expected = light.expected_charge(cascades, positions, detector.flat_efficiency, ice)
    expected[:, detector.flat_dead] = 0.0
    if systematics > 0:
        expected *= rng.gamma(1 / systematics, systematics, detector.n_doms)
    counts = rng.poisson(expected)
    source, dom = np.nonzero(counts)
    count = counts[source, dom]
    delta = positions[dom] - cascades[source, :3]
    r = np.sqrt(np.einsum("hi,hi->h", delta, delta) + ice.core**2)
    earliest = cascades[source, 6] + r / light.SPEED_IN_ICE
    delay = rng.standard_gamma(np.repeat(light.shape(r, ice), count)) / ice.rate
    time = np.repeat(earliest, count) + delay
    return Pulses(np.ones(len(time)), time, np.repeat(dom, count).astype(np.int32))


def with_readout_errors(rng: np.random.Generator, photons: Pulses, readout: Readout) -> Pulses:
    """Charges and times as they are measured."""
    charge, time = photons.charge, photons.time
    if readout.time_jitter > 0:
        time = time + readout.time_jitter * rng.standard_normal(len(time))
    if readout.charge == "spe":
        charge = 1.0 + _SPE_WIDTH * rng.standard_normal(len(charge))
        while (low := charge <= _SPE_THRESHOLD).any():
            charge[low] = 1.0 + _SPE_WIDTH * rng.standard_normal(int(low.sum()))
    return Pulses(charge, time, photons.dom)


def noise(rng: np.random.Generator, detector: Detector, window: tuple[float, float], factor: float) -> Pulses:
    """Noise of unit charge, uniform in the window."""
    counts = rng.poisson(factor * detector.flat_noise_rate * (window[1] - window[0]))
    dom = np.repeat(np.arange(detector.n_doms, dtype=np.int32), counts)
    return Pulses(np.ones(len(dom)), rng.uniform(*window, len(dom)), dom)


def joined(*parts: Pulses) -> Pulses:
    """All pulses, sorted by DOM and time."""
    arrays = ([getattr(part, name) for part in parts] for name in ("charge", "time", "dom"))
    return Pulses(*map(np.concatenate, arrays)).sorted()


def grouped(pulses: Pulses, limit: int) -> tuple[Pulses, int]:
    """At most `limit` pulses per DOM, and the number of DOMs that had more.

    Photons are grouped in the order of time, as evenly as it goes; a group has their summed charge and mean time.
    """
    number = numbers(pulses.dom)
    if not limit or not len(number) or number.max() < limit:
        return pulses, 0
    starts = np.flatnonzero(number == 0)
    sizes = np.diff([*starts, len(number)])
    total = np.repeat(sizes, sizes)
    group = np.where(total > limit, number * np.int64(limit) // total, number)
    first = np.flatnonzero((group != np.roll(group, 1)) | (number == 0))
    charge = np.add.reduceat(pulses.charge, first, dtype=np.float64)
    count = np.diff([*first, len(number)])
    time = np.add.reduceat(pulses.time, first, dtype=np.float64) / count
    return Pulses(charge, time, pulses.dom[first]).sorted(), int((sizes > limit).sum())


def gaps(
    rng: np.random.Generator,
    pulses: Pulses,
    cascades: np.ndarray,
    detector: Detector,
    ice: Ice,
    window: tuple[float, float],
    settings: DeadTime,
) -> Gaps:
    """Dead times of the DOMs that saw light, not yet merged.

    That of a saturated DOM covers the middle half of the light of the cascade that it expects most of: it depends on
    the DOM's charge but not on its times, so the times outside it still follow their distribution.
    """
    hit = np.unique(pulses.dom)
    chosen = hit[rng.random(len(hit)) < settings.probability]
    start = rng.uniform(*window, len(chosen))
    stop = start + np.exp(rng.uniform(*np.log(settings.length), len(chosen)))
    dom = chosen
    if settings.saturation is not None:
        charge = np.bincount(pulses.dom, weights=pulses.charge, minlength=detector.n_doms)
        saturated = np.flatnonzero(charge > settings.saturation)
        lo, hi = _peaks(saturated, cascades, detector, ice)
        start, stop = np.concatenate([start, lo]), np.concatenate([stop, hi])
        dom = np.concatenate([dom, saturated])
    return Gaps(start, stop, dom.astype(np.int32))


def _peaks(
    doms: np.ndarray, cascades: np.ndarray, detector: Detector, ice: Ice
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end (k,) of about the middle half of the light at `doms` (k,): mean ± 2/3 standard deviations."""
    positions, efficiency = detector.flat_positions[doms], detector.flat_efficiency[doms]
    brightest = light.expected_charge(cascades, positions, efficiency, ice).argmax(axis=0)
    each = np.arange(len(doms))
    r = light.distance(cascades, positions, ice)[brightest, each]
    kappa = light.shape(r, ice)
    mean = cascades[brightest, 6] + r / light.SPEED_IN_ICE + kappa / ice.rate
    half = np.sqrt(kappa) / ice.rate * 2 / 3
    return mean - half, mean + half
