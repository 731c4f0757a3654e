"""What an all-reduce costs: closed forms, limits, and the same numbers from messages counted one by one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcreco.planning.network import ASSUMED, Network, exposed, fit

RANKS = [1, 2, 3, 4, 7, 8, 64, 512]
NETWORK = Network(latency=1e-5, bandwidth=1e9)


@pytest.mark.parametrize("algorithm", ["halving", "ring"])
def test_nothing_to_send_or_nobody_to_send_to_takes_no_time(algorithm):
    network = Network(1e-5, 1e9, 1e-3, algorithm)
    assert network.allreduce(1e6, 1) == 0
    assert all(network.allreduce(0, ranks) == 0 for ranks in RANKS)
    assert network.small(1) == 0


@pytest.mark.parametrize("ranks", [2, 4, 8, 64, 512])
def test_halving_is_the_sum_of_its_messages(ranks):
    """Each of log2 R rounds of the reduce-scatter halves what is sent; the allgather mirrors it."""
    size, seconds, part = 1e6, 0.0, 1e6
    for _ in range(int(math.log2(ranks))):
        part /= 2
        seconds += 2 * (NETWORK.latency + part / NETWORK.bandwidth)
    assert NETWORK.allreduce(size, ranks) == pytest.approx(seconds)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_the_ring_is_the_sum_of_its_messages(ranks):
    ring = Network(NETWORK.latency, NETWORK.bandwidth, algorithm="ring")
    seconds = sum(NETWORK.latency + 1e6 / ranks / NETWORK.bandwidth for _ in range(2 * (ranks - 1)))
    assert ring.allreduce(1e6, ranks) == pytest.approx(seconds)
    assert ring.allreduce(1e6, ranks) >= NETWORK.allreduce(1e6, ranks) - 1e-12 or ranks == 3


def test_it_grows_with_ranks_and_bytes():
    by_ranks = [NETWORK.allreduce(1e6, ranks) for ranks in RANKS]
    assert by_ranks == sorted(by_ranks)
    assert NETWORK.allreduce(2e6, 64) > NETWORK.allreduce(1e6, 64)


sizes = st.lists(st.floats(1e3, 1e7), min_size=1, max_size=6)


@given(sizes, st.floats(0, 1), st.sampled_from(RANKS))
def test_what_is_exposed_lies_between_the_last_bucket_and_everything(buckets, backward, ranks):
    whole = sum(NETWORK.allreduce(size, ranks) for size in buckets)
    seen = exposed(buckets, backward, NETWORK, ranks)
    last = NETWORK.allreduce(buckets[-1], ranks)
    assert last - 1e-12 <= seen <= whole + 1e-12
    assert exposed(buckets, 0.0, NETWORK, ranks) == pytest.approx(whole)
    assert seen >= exposed(buckets, backward + 0.1, NETWORK, ranks) - 1e-12


def test_a_long_backward_hides_all_but_the_last_bucket():
    buckets = [1e6] * 5
    assert exposed(buckets, 100.0, NETWORK, 64) == pytest.approx(NETWORK.allreduce(1e6, 64))


@pytest.mark.parametrize("algorithm", ["halving", "ring"])
@pytest.mark.parametrize("overhead", [0.0, 2e-4])
def test_a_fit_finds_overhead_and_bandwidth_again(algorithm, overhead):
    truth = Network(ASSUMED.latency, 5e9, overhead, algorithm)
    volumes = [8, 1 << 14, 1 << 20, 1 << 24]
    found = fit(volumes, [truth.allreduce(size, 6) for size in volumes], 6, algorithm)
    assert found.latency == pytest.approx(truth.latency, rel=1e-4)
    assert found.overhead == pytest.approx(truth.overhead, abs=1e-8)
    assert found.bandwidth == pytest.approx(truth.bandwidth, rel=1e-4)
    assert "6 ranks" in found.source


def test_an_operation_s_overhead_does_not_grow_with_the_ranks():
    bare, slow = Network(1e-5, 1e9), Network(1e-5, 1e9, overhead=0.004)
    for ranks in RANKS[1:]:
        assert slow.allreduce(1e6, ranks) - bare.allreduce(1e6, ranks) == pytest.approx(0.004)
        assert slow.small(ranks) - bare.small(ranks) == pytest.approx(0.004)


def test_a_faster_network_than_assumed_has_less_latency():
    truth = Network(1e-6, 5e9)
    found = fit([8, 1 << 24], [truth.allreduce(size, 8) for size in (8, 1 << 24)], 8, "halving")
    assert found.latency == pytest.approx(1e-6, rel=1e-3)
    assert found.overhead == pytest.approx(0, abs=1e-9)
