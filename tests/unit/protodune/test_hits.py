"""Hits: pulses add up where they overlap, and found hits keep the charge of every channel."""

import numpy as np
import pytest

from hpcreco.experiments.protodune import hits
from hpcreco.experiments.protodune.hits import Hits


def dense(samples, n_ticks=200, n_channels=8):
    found = np.zeros((n_ticks, n_channels))
    found[samples.tick, samples.channel] = samples.value
    return found


def test_pulses_are_the_sum_over_hits_tick_by_tick():
    rng = np.random.default_rng(5)
    n = 60
    start = rng.integers(-5, 190, n)
    made = Hits(
        rng.integers(0, 8, n), start, start + rng.integers(1, 30, n), start + rng.uniform(0, 20, n),
        rng.uniform(0.5, 6, n), rng.uniform(10, 900, n),
    )  # fmt: skip
    wanted = np.zeros((200, 8))
    for channel, first, last, time, rms, peak in zip(*made, strict=True):
        for tick in range(max(first, 0), min(last, 200)):
            wanted[tick, channel] += peak * np.exp(-((tick - time) ** 2) / (2 * rms**2))
    samples = hits.waveforms(made, 200)
    np.testing.assert_allclose(dense(samples), wanted, rtol=1e-5, atol=1e-4)
    key = samples.tick * 8 + samples.channel
    assert (np.diff(key) > 0).all()


def test_found_hits_keep_the_charge_of_every_channel_and_tell_neighbours_apart():
    ticks = np.arange(200)
    wave = np.zeros((200, 8))
    wave[:, 2] = 1000 * np.exp(-(((ticks - 50) / 4) ** 2) / 2) + 600 * np.exp(-(((ticks - 75) / 4) ** 2) / 2)
    wave[:, 3] = 800 * np.exp(-(((ticks - 120) / 5) ** 2) / 2)
    wave[:, 4] = 300 * ((ticks >= 10) & (ticks < 30))
    wave[wave < 1] = 0
    tick, channel = np.nonzero(wave)
    found = hits.find(tick, channel, wave[tick, channel], 200)
    assert found.channel.tolist() == [2, 2, 3, 4]
    np.testing.assert_allclose(found.time, [50, 75, 120, 19.5], atol=0.3)
    np.testing.assert_allclose(found.rms[:3], [4, 4, 5], rtol=0.05)
    np.testing.assert_allclose(found.peak[:3], [1000, 600, 800], rtol=0.05)
    rebuilt = dense(hits.waveforms(found, 200))
    np.testing.assert_allclose(rebuilt.sum(0), wave.sum(0), rtol=1e-6)


def test_no_samples_are_no_hits():
    none = np.zeros(0, np.int64)
    found = hits.find(none, none, none.astype(float), 200)
    assert len(found.channel) == 0
    assert len(hits.waveforms(found, 200).tick) == 0


@pytest.mark.parametrize("at", [0, 199])
def test_a_hit_at_the_edge_of_the_readout_stays_inside(at):
    found = hits.find(np.array([at]), np.array([3]), np.array([500.0]), 200)
    samples = hits.waveforms(found, 200)
    assert samples.tick.min() >= 0
    assert samples.tick.max() < 200
    assert samples.value.sum() == pytest.approx(500, rel=1e-6)
