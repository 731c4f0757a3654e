"""Packs hold what they may, steps are made of like packs, and together they are the epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco.data.balance import simulate
from hpcreco.data.packing import best_fit, pack_epoch
from hpcreco.data.plan import PlanError, StepPlanner
from tests.unit.data.test_plan import epoch_of, files

costs_and_capacity = st.tuples(
    st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=60), st.floats(1, 150)
)


def sizes(n: int, seed: int = 0, width: float = 0.5) -> np.ndarray:
    """Log-normal sizes in voxels."""
    return np.round(np.random.default_rng(seed).lognormal(11.5, width, n))


def planner(costs: np.ndarray, parts: int, per_part: float, seed: int = 1, **kw) -> StepPlanner:
    """Steps of `parts` packs of `per_part` mean events."""
    part = per_part * max(1.0, float(costs.mean()))
    return StepPlanner(files([len(costs)]), costs, "cost", parts * part, seed, rank_size=part, **kw)


@settings(max_examples=80, deadline=None)
@given(costs_and_capacity)
def test_packs_partition_the_events_within_capacity(drawn):
    costs, capacity = np.array(drawn[0]), drawn[1]
    packs = best_fit(costs, capacity)
    assert sorted(np.concatenate(packs).tolist()) == list(range(len(costs)))
    loads = [costs[pack].sum() for pack in packs]
    for pack, load in zip(packs, loads, strict=True):
        assert load <= capacity * (1 + 1e-9) or len(pack) == 1
    # two packs that fit into one would have been one: no more than one is half empty
    assert sum(load < capacity / 2 * (1 - 1e-9) for load in loads) <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(12, 20))
def test_there_are_few_packs(costs, capacity):
    """Against the fewest possible, found by trying everything."""

    def fewest(rest: list[int], room: tuple[int, ...], best: int) -> int:
        if len(room) >= best or not rest:
            return min(best, len(room))
        for at in {r: i for i, r in enumerate(room) if r >= rest[0]}.values():
            best = min(best, fewest(rest[1:], (*room[:at], room[at] - rest[0], *room[at + 1 :]), best))
        return fewest(rest[1:], (*room, capacity - rest[0]), best)

    optimum = fewest(sorted(costs, reverse=True), (), len(costs) + 1)
    assert len(best_fit(np.array(costs, float), capacity)) <= 11 / 9 * optimum + 1


@settings(max_examples=40, deadline=None)
@given(costs_and_capacity, st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_has_every_event_once_in_steps_of_whole_packs(drawn, per_step, epoch):
    costs, capacity = np.array(drawn[0]), drawn[1]
    events = np.random.default_rng(epoch).permutation(len(costs))
    packed = pack_epoch(costs, events, capacity, per_step, (7, 0, epoch))
    assert sorted(packed.order.tolist()) == list(range(len(costs)))
    assert packed.packs[-1] == packed.steps[-1] == len(costs)
    assert set(packed.steps) <= set(packed.packs)
    inside = np.diff(np.searchsorted(packed.packs, packed.steps), prepend=-1)
    assert set(inside[:-1]) <= {per_step}
    assert 1 <= inside[-1] <= per_step


def test_steps_hold_packs_that_cost_about_the_same():
    costs = sizes(3000)
    packed = pack_epoch(costs, np.arange(3000), 1.5 * costs.mean(), 8, (1, 0, 0))
    loads = np.diff(np.cumsum(costs[packed.order])[packed.packs - 1], prepend=0.0)
    widths = [np.ptp(loads[start : start + 8]) / costs.mean() for start in range(0, len(loads) - 8, 8)]
    assert np.median(widths) < 0.05
    assert np.ptp(loads) > costs.mean()  # among all, they differ


@pytest.mark.parametrize("per_rank", [1, 2, 4, 8])
@pytest.mark.parametrize("ranks", [8, 64])
def test_ranks_wait_little_although_sizes_spread(ranks, per_rank):
    costs = sizes(ranks * per_rank * (150 if per_rank == 1 else 40))
    packed = simulate(planner(costs, ranks, per_rank), ranks)
    plain = simulate(StepPlanner(files([len(costs)]), costs, "events", ranks * per_rank, 1), ranks)
    assert packed.overall >= 0.95
    assert packed.overall > plain.overall


def test_fewer_ranks_than_parts_have_equal_loads_too():
    plan = planner(sizes(4000), 64, 2)
    for ranks in (1, 2, 16, 32):
        assert simulate(plan, ranks).overall >= 0.97


def test_steps_are_the_same_for_any_number_of_ranks():
    plan = planner(sizes(500), 8, 2)
    assert epoch_of(plan, 1) == epoch_of(plan, 5) == epoch_of(plan, 64)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.integers(0, 1))
def test_the_stream_goes_on_at_any_step(skipped, epoch):
    costs = sizes(90)
    straight = planner(costs, 4, 2).stream(epoch)
    steps = [next(straight) for _ in range(skipped + 6)]
    last = steps[skipped - 1] if skipped else None
    resumed = planner(costs, 4, 2).stream(
        last.epoch if last else epoch, last.next_position if last else 0, ranks=3
    )
    assert [next(resumed) for _ in range(6)] == steps[skipped:]


def test_epochs_seeds_and_stages_pack_and_shuffle_differently():
    costs = sizes(200)
    plans = [planner(costs, 4, 2), planner(costs, 4, 2, seed=2), planner(costs, 4, 2, stage=1)]
    firsts = [plan.step(0, 0, 1).refs for plan in plans] + [plans[0].step(1, 0, 1).refs]
    assert len({frozenset(refs) for refs in firsts}) == 4


def test_large_and_small_steps_come_in_random_order():
    costs = sizes(4000)
    steps = epoch_of(planner(costs, 8, 1), 1)
    totals = np.array([sum(step.costs) for step in steps[:-1]])
    following = np.corrcoef(totals[:-1], totals[1:])[0, 1]
    assert abs(following) < 4 / np.sqrt(len(totals))


@pytest.mark.parametrize("costs", [np.zeros(5), np.array([3.0]), np.array([0.0, 0.0, 9.0]), np.full(7, 2.0)])
@pytest.mark.parametrize("ranks", [1, 4])
def test_few_free_and_equal_events_are_planned_as_well(costs, ranks):
    plan = planner(costs, 4, 1)
    steps = epoch_of(plan, ranks)
    assert sorted(ref.event for step in steps for ref in step.refs) == list(range(len(costs)))
    found = simulate(plan, ranks)
    assert found.loads.sum() == costs.sum()
    assert plan.steps_in(0, ranks) == len(steps)


def test_a_step_must_hold_at_least_one_pack():
    for size in (0.0, -1.0, 21.0, float("nan")):
        with pytest.raises(PlanError, match="rank size"):
            StepPlanner(files([4]), np.ones(4), "cost", 20.0, 0, rank_size=size)
    with pytest.raises(PlanError, match="in mode 'cost'"):
        StepPlanner(files([4]), np.ones(4), "events", 20, 0, rank_size=2.0)


def test_thirds_of_a_step_are_three():
    plan = StepPlanner(files([9]), np.full(9, 0.1), "cost", 0.3, 0, rank_size=0.1)
    assert [len(step.refs) for step in epoch_of(plan, 1)] == [3, 3, 3]


def test_the_order_of_a_seed_never_changes():
    """Golden: a resumed run may use another version of numpy."""
    plan = StepPlanner(files([12]), np.arange(1.0, 13.0), "cost", 26.0, 5, rank_size=13.0)
    assert [ref.event for ref in plan.step(0, 0, 1).refs] == [6, 5, 10, 1]
