"""The hit product: waveforms rebuilt from Gaussian hits, and a simple finder of such hits for simulated waveforms.

A hit says that a wire saw ``peak * exp(-(t - time)^2 / (2 rms^2))`` electrons per tick on the ticks [start, end).
Hits that overlap add up.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hpcreco.experiments.protodune.parsed import Waveforms

REACH = 3.0
"""A hit found here extends over so many rms to each side."""
VALLEY = 0.7
"""Two maxima of a region are two hits when the samples between them fall below this share of the lower one."""


class Hits(NamedTuple):
    """Hits of one event, one per entry of the arrays (H,)."""

    channel: np.ndarray  # int64
    start: np.ndarray  # first tick
    end: np.ndarray  # one past the last tick
    time: np.ndarray  # ticks
    rms: np.ndarray  # ticks
    peak: np.ndarray  # electrons per tick


def waveforms(hits: Hits, n_ticks: int) -> Waveforms:
    """The sum of all pulses as samples sorted by (tick, channel); ticks outside [0, n_ticks) are cut off."""
    start, end = np.clip(hits.start, 0, n_ticks), np.clip(hits.end, 0, n_ticks)
    length = np.maximum(end - start, 0)
    hit = np.repeat(np.arange(len(length)), length)
    tick = np.arange(len(hit)) - np.repeat(np.cumsum(length) - length, length) + start[hit]
    value = hits.peak[hit] * np.exp(-0.5 * ((tick - hits.time[hit]) / hits.rms[hit]) ** 2)
    channels = int(hits.channel.max(initial=0)) + 1
    key, at = np.unique(tick * channels + hits.channel[hit], return_inverse=True)
    summed = np.bincount(at, weights=value, minlength=len(key))
    return Waveforms(key // channels, key % channels, summed.astype(np.float32))


def find(tick: np.ndarray, channel: np.ndarray, value: np.ndarray, n_ticks: int) -> Hits:
    """Hits of an event's samples (n,): a region of consecutive ticks is cut at its deep valleys; one hit per piece.

    A hit has the mean, the rms (half a tick at least) and the charge of its piece.
    """
    from scipy.signal import find_peaks

    order = np.lexsort((tick, channel))
    tick, channel = tick[order].astype(np.int64), channel[order].astype(np.int64)
    value = np.maximum(value[order].astype(float), 0.0)
    if not len(tick):
        none, zero = np.zeros(0, np.int64), np.zeros(0)
        return Hits(none, none, none, zero, zero, zero)
    new = np.r_[True, (np.diff(channel) != 0) | (np.diff(tick) != 1)]
    # all regions in one line, a zero between them, so that none is higher than its neighbour's valley
    place = np.arange(len(tick)) + np.cumsum(new)
    line = np.zeros(place[-1] + 2)
    line[place] = value
    peaks, _ = find_peaks(line)
    cuts = []
    for left, right in pairwise(peaks):
        valley = left + int(line[left:right].argmin())
        if 0 < line[valley] < VALLEY * min(line[left], line[right]):
            cuts.append(valley)
    first = np.union1d(np.flatnonzero(new), np.searchsorted(place, cuts))
    charge = np.add.reduceat(value, first)
    kept = charge > 0
    weight = np.where(kept, charge, 1.0)
    time = np.add.reduceat(value * tick, first) / weight
    spread = np.add.reduceat(value * tick.astype(float) ** 2, first) / weight - time**2
    found = (channel[first][kept], time[kept], np.sqrt(np.maximum(spread[kept], 0.25)), charge[kept])
    return _pulses(*found, n_ticks)


def _pulses(channel: np.ndarray, time: np.ndarray, rms: np.ndarray, charge: np.ndarray, n_ticks: int) -> Hits:
    """Hits with the peaks that give each its charge (electrons) over the ticks it extends to."""
    start = np.maximum(np.floor(time - REACH * rms).astype(np.int64), 0)
    end = np.minimum(np.ceil(time + REACH * rms).astype(np.int64) + 1, n_ticks)
    height = np.array(
        [
            np.exp(-0.5 * ((np.arange(s, e) - t) / r) ** 2).sum()
            for s, e, t, r in zip(start, end, time, rms, strict=True)
        ]
    )
    return Hits(channel, start, end, time, rms, charge / np.maximum(height, 1e-12))
