"""What is measured at: batches like those of training, of rising cost, each event once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcreco.config import Parallel
from hpcreco.planning import sending, timing
from hpcreco.planning.candidates import candidates


def part(costs, files=3):
    costs = np.asarray(costs, float)
    first = np.linspace(0, len(costs), files + 1).astype(np.int64)
    return SimpleNamespace(costs=costs, index=SimpleNamespace(first=first))


def test_candidates_rise_to_the_largest_and_repeat_no_event():
    costs = np.random.default_rng(3).lognormal(3, 1, 200)
    shown = part(costs)
    found = candidates(shown, largest=2000.0)
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
    assert all(one.refs for one in candidates(part(costs, 1), max(costs)))


def test_buckets_hold_all_bytes_the_last_layer_first():
    def sent(layers, size, compression="none"):
        return sending.bucket_bytes(layers, Parallel(bucket_mb=size / 2**20, compression=compression))

    layers = [torch.nn.Parameter(torch.zeros(n)) for n in (100, 50, 10, 5)]
    assert sent(layers, 1e9) == (660.0,)
    assert sent(layers, 240) == (60.0, 200.0, 400.0)
    assert sent(layers, 240, "bf16") == (30.0, 100.0, 200.0)
    halves = [torch.nn.Parameter(torch.zeros(8, dtype=torch.float16))]
    assert sent(halves, 1e9) == (32.0,)


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16"])
def test_packing_leaves_the_gradients_as_they_were(compression):
    model = torch.nn.Linear(50, 4)
    model.weight.grad = torch.randn(4, 50)
    before = model.weight.grad
    kept = before.clone()
    assert sending.packing(model, Parallel(compression=compression), torch.device("cpu")) > 0
    assert model.weight.grad is before
    assert torch.equal(before, kept)
    assert model.bias.grad is None


def test_the_time_since_the_start_is_known():
    assert 0 < timing.uptime() < 1e6
