"""Signal-processing stand-in: collected charge -> smoothed, noisy waveforms cut to regions of interest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcreco.compiling import compiled
from hpcreco.experiments.protodune.geometry import N_CHANNELS, N_TICKS, Face
from hpcreco.experiments.protodune.simulation.drift import Charges

MARGIN = 16  # ticks of noise beyond the reach of the smoothing, so that noise can lengthen a run


@dataclass(frozen=True)
class SignalSettings:
    """Shape, noise and region rules; electrons per tick. `induction` and `collection` give (U and V, X) values."""

    sigma: float = 2.65  # ticks
    half_width: int = 12  # ticks
    noise_induction: float = 80.0
    noise_collection: float = 50.0
    run_level: float = 150.0
    seed_induction: float = 1400.0
    seed_collection: float = 900.0
    pad: int = 5  # ticks on each side of a run
    floor: float = 1e-2  # what is kept is at least this, so that the tiler sees it
    dead_fraction: float = 0.0


class Samples(NamedTuple):
    """Non-zero waveform samples sorted by (tick, channel)."""

    tick: np.ndarray  # uint16
    channel: np.ndarray  # uint16
    value: np.ndarray  # float32, electrons per tick


def is_collection(faces: tuple[Face, ...]) -> np.ndarray:
    """Mask (N_CHANNELS,) of the channels read by X planes."""
    mask = np.zeros(N_CHANNELS, bool)
    for face in faces:
        for plane in face.planes:
            if plane.name == "X":
                mask[plane.channels] = True
    return mask


def dead_channels(rng: np.random.Generator, fraction: float) -> np.ndarray:
    """Sorted int32 channels that give no signal: each is dead with probability `fraction`."""
    return np.flatnonzero(rng.random(N_CHANNELS) < fraction).astype(np.int32)


def process(
    charges: Charges,
    collection: np.ndarray,
    settings: SignalSettings,
    rng: np.random.Generator,
    dead: np.ndarray,
) -> Samples:
    """Smooth, add noise, keep padded runs above `run_level` whose maximum reaches the seed level."""
    channel, tick = charges.channel, charges.tick
    alive = ~np.isin(channel, dead)
    channel, tick, electrons = channel[alive], tick[alive], charges.electrons[alive]
    kernel = smoothing_kernel(settings)
    reach = settings.half_width + MARGIN
    first = np.flatnonzero(np.diff(channel, prepend=-1))
    bounds = np.append(first, len(channel))
    noise_size = (
        _noise_needed(channel, tick, reach) if settings.noise_induction or settings.noise_collection else 0
    )
    noise = rng.standard_normal(noise_size, dtype=np.float32)
    level = np.where(collection, settings.noise_collection, settings.noise_induction)
    seed = np.where(collection, settings.seed_collection, settings.seed_induction)
    levels = (settings.run_level, settings.pad, settings.floor)
    out_channel, out_tick, value = _regions(
        channel, tick, electrons, bounds, kernel, reach, noise, level, seed, levels
    )
    order = np.argsort(out_tick * N_CHANNELS + out_channel, kind="stable")
    return Samples(out_tick[order].astype(np.uint16), out_channel[order].astype(np.uint16), value[order])


def smoothing_kernel(settings: SignalSettings) -> np.ndarray:
    """Gaussian weights (2 * half_width + 1,) that sum to one."""
    t = np.arange(-settings.half_width, settings.half_width + 1)
    weights = np.exp(-0.5 * (t / settings.sigma) ** 2) if settings.sigma > 0 else (t == 0).astype(float)
    return weights / weights.sum()


def _noise_needed(channel: np.ndarray, tick: np.ndarray, reach: int) -> int:
    """Upper bound on the ticks within `reach` of any charge."""
    same = np.diff(channel, append=-1) == 0
    gap = np.minimum(np.diff(tick, append=0), 2 * reach + 1)
    return int(np.where(same, gap, 2 * reach + 1).sum())


@compiled()
def _regions(
    channel, tick, electrons, bounds, kernel, reach, noise, noise_level, seed, levels
):  # pragma: no cover - compiled
    run_level, pad, floor = levels
    line, keep = np.zeros(N_TICKS), np.zeros(N_TICKS, np.bool_)
    capacity = 1024
    out_channel, out_tick = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    value = np.empty(capacity, np.float32)
    n_out, n_noise = 0, 0
    for c in range(len(bounds) - 1):
        low, high = bounds[c], bounds[c + 1]
        wire = channel[low]
        line[:] = 0.0
        keep[:] = False
        n_noise = _waveform(
            line, tick[low:high], electrons[low:high], kernel, reach, noise_level[wire], noise, n_noise
        )
        first, last = max(tick[low] - reach, 0), min(tick[high - 1] + reach + 1, N_TICKS)
        _keep_runs(line, keep, first, last, run_level, seed[wire], pad)
        for k in range(max(first - pad, 0), min(last + pad, N_TICKS)):
            if not keep[k]:
                continue
            if n_out == capacity:
                capacity *= 2
                out_channel, out_tick = _grown(out_channel, capacity), _grown(out_tick, capacity)
                value = _grown(value, capacity)
            out_channel[n_out], out_tick[n_out], value[n_out] = wire, k, max(line[k], floor)
            n_out += 1
    return out_channel[:n_out], out_tick[:n_out], value[:n_out]


@compiled()
def _waveform(line, tick, electrons, kernel, reach, level, noise, n_noise):  # pragma: no cover - compiled
    """Add smoothed charge, and noise within `reach` of it; returns how many noise values have been used."""
    half = len(kernel) // 2
    done = 0
    for i in range(len(tick)):
        for k in range(max(tick[i] - half, 0), min(tick[i] + half + 1, N_TICKS)):
            line[k] += electrons[i] * kernel[k - tick[i] + half]
        if len(noise):
            for k in range(max(tick[i] - reach, done), min(tick[i] + reach + 1, N_TICKS)):
                line[k] += level * noise[n_noise]
                n_noise += 1
            done = max(done, min(tick[i] + reach + 1, N_TICKS))
    return n_noise


@compiled()
def _keep_runs(line, keep, first, last, run_level, seed, pad):  # pragma: no cover - compiled
    """Mark runs above `run_level` whose maximum reaches `seed`, and `pad` ticks on each side of them."""
    k = first
    while k < last:
        if line[k] <= run_level:
            k += 1
            continue
        begin, peak = k, line[k]
        while k < last and line[k] > run_level:
            peak = max(peak, line[k])
            k += 1
        if peak >= seed:
            keep[max(begin - pad, 0) : min(k + pad, N_TICKS)] = True


@compiled()
def _grown(array, capacity):  # pragma: no cover - compiled
    bigger = np.empty(capacity, array.dtype)
    bigger[: len(array)] = array
    return bigger
