"""What is measured at: batches like those of training, of rising cost, each event once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcreco.planning import measuring


def part(costs, files=3):
    costs = np.asarray(costs, float)
    first = np.linspace(0, len(costs), files + 1).astype(np.int64)
    return SimpleNamespace(costs=costs, index=SimpleNamespace(first=first))


def test_candidates_rise_to_the_largest_and_repeat_no_event():
    costs = np.random.default_rng(3).lognormal(3, 1, 200)
    shown = part(costs)
    found = measuring.candidates(shown, largest=2000.0)
    sums = [one.cost for one in found]
    assert sums == sorted(sums)
    assert sums[0] == pytest.approx(costs.min())
    assert 1800 < sums[-1] <= 2000 * (1 + 1e-6)
    for one in found:
        events = [int(shown.index.first[ref.shard]) + ref.event for ref in one.refs]
        assert len(set(events)) == len(events)
        assert one.costs == tuple(costs[events])


@pytest.mark.parametrize("costs", [[5.0], [0.0, 0.0], [0.0, 3.0]])
def test_few_or_empty_events_are_measured_all_the_same(costs):
    assert all(one.refs for one in measuring.candidates(part(costs, 1), max(costs)))


def test_buckets_hold_all_bytes_the_last_layer_first():
    layers = [torch.nn.Parameter(torch.zeros(n)) for n in (100, 50, 10, 5)]
    assert measuring.bucket_bytes(layers, 1e9) == (660.0,)
    assert measuring.bucket_bytes(layers, 240) == (60.0, 200.0, 400.0)
    assert measuring.bucket_bytes(layers, 240, "bf16") == (30.0, 100.0, 200.0)
    halves = [torch.nn.Parameter(torch.zeros(8, dtype=torch.float16))]
    assert measuring.bucket_bytes(halves, 1e9) == (32.0,)


def test_the_time_since_the_start_is_known():
    assert 0 < measuring.uptime() < 1e6
