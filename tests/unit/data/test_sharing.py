"""Shares of a step add up to it and are as even as the rule promises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco.data.batch import Ref
from hpcreco.data.plan import PlanError, Step
from hpcreco.data.sharing import assign, efficiency, micro_batches, share, split, sweep
from tests.unit.data.test_plan import COSTS, SIZES, files, planner

EVERY = {Ref(s, e) for s, size in enumerate(SIZES) for e in range(size)}

costs_and_ranks = st.tuples(
    st.lists(st.floats(0, 1e6, allow_nan=False), min_size=0, max_size=40), st.integers(1, 9)
)


@settings(max_examples=60, deadline=None)
@given(costs_and_ranks)
def test_a_split_is_a_partition_within_the_bound_of_the_rule(drawn):
    costs, ranks = drawn
    refs = [Ref(n // 3, n % 3) for n in range(len(costs))]
    shares = split(refs, costs, ranks)
    assert sorted(i for part in shares for i in part) == list(range(len(costs)))
    assert all(part == sorted(part) for part in shares)
    loads = [sum(costs[i] for i in part) for part in shares]
    # Graham: no list schedule exceeds mean + largest
    assert max(loads) <= sum(costs) / ranks + max(costs, default=0) + 1e-6
    whole = split(refs, costs, ranks, whole_files=True)
    assert sorted(i for part in whole for i in part) == list(range(len(costs)))
    homes = [{refs[i].shard for i in part} for part in whole]
    assert sum(map(len, homes)) == len(set().union(*homes))


def test_equal_costs_give_equal_shares_even_when_nothing_costs_anything():
    for cost in (0.0, 2.0):
        parts = split([Ref(0, n) for n in range(8)], [cost] * 8, 4)
        assert [len(part) for part in parts] == [2] * 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0.1, 150))
def test_micro_batches_keep_order_and_budget(costs, budget):
    cut = micro_batches(costs, budget)
    assert [i for batch in cut for i in batch] == list(range(len(costs)))
    assert all(len(batch) == 1 or sum(costs[i] for i in batch) <= budget for batch in cut)
    padded = micro_batches(costs, budget, len(cut) + 2)
    assert padded == [*cut, [], []]
    with pytest.raises(PlanError):
        micro_batches([1.0, 1.0], 1.0, 1)


@pytest.mark.parametrize("ranks", [1, 2, 5, 30])
@pytest.mark.parametrize("budget", [None, 30.0])
def test_all_ranks_run_the_same_number_of_micro_batches_and_together_the_step(ranks, budget):
    step = planner("events", 12).step(0, 0, ranks)
    shares = [share(step, rank, ranks, budget) for rank in range(ranks)]
    assert len({len(part.micro_batches) for part in shares}) == 1
    assert len(shares[0].micro_batches) >= 1
    together = [ref for part in shares for refs, _ in part.micro_batches for ref in refs]
    assert sorted(together) == sorted(step.refs)
    assert len({part.efficiency for part in shares}) == 1


def test_a_sweep_takes_every_event_once_and_keeps_files_together_when_asked():
    for whole in (False, True):
        shares = [sweep(files(SIZES), COSTS, rank, 3, 60.0, whole) for rank in range(3)]
        per_rank = [
            [ref for part in mine for refs, _ in part.micro_batches for ref in refs] for mine in shares
        ]
        assert sorted(ref for refs in per_rank for ref in refs) == sorted(EVERY)
        assert all(refs == sorted(refs) for refs in per_rank)
        homes = [{ref.shard for ref in refs} for refs in per_rank]
        if whole:
            assert sum(map(len, homes)) == len(set().union(*homes))


def test_efficiency_is_mean_over_largest():
    assert efficiency([1.0, 1.0, 4.0]) == 0.5
    assert efficiency([0.0, 0.0]) == 1.0


def step_of(costs: list[float], packs: list[int]) -> Step:
    refs = tuple(Ref(0, number) for number in range(len(costs)))
    return Step(0, 0, len(costs), True, refs, tuple(costs), tuple(packs))


def test_packs_that_are_even_stay_whole():
    step = step_of([6.0, 4.0, 5.0, 5.0, 9.0, 1.0], [7, 7, 8, 8, 9, 9])
    assert sorted(assign(step, 3)) == [[0, 1], [2, 3], [4, 5]]


def test_packs_are_taken_apart_where_ranks_would_wait():
    step = step_of([5.0, 5.0, 5.0, 5.0, 5.0, 5.0], [0, 0, 1, 1, 2, 2])  # three packs for two ranks
    assert sorted(map(len, assign(step, 2))) == [3, 3]


def test_packs_are_kept_where_dealing_events_is_worse():
    step = step_of([3.0, 3.0, 2.0, 2.0, 2.0], [4, 4, 5, 5, 5])  # longest first gives 7 and 5
    assert assign(step, 2) == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_micro_budget_of_one_pack_makes_no_more_passes_than_packs(epoch):
    step = planner("packed", 160.0).step(epoch, 0, 1)
    assert len(share(step, 0, 1, budget=40.0).micro_batches) <= len(set(step.packs))
