"""A step is a pure function of (seed, stage, epoch, position)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from hpcreco.data.batch import Ref
from hpcreco.data.plan import PlanError, StepPlanner
from hpcreco.data.sharing import share


@dataclass(frozen=True)
class Files:
    first: np.ndarray


def files(sizes: list[int]) -> Files:
    return Files(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


SIZES = [3, 0, 2, 5, 1, 4, 0, 6]
COSTS = np.random.default_rng(5).integers(0, 40, sum(SIZES)).astype(float)
EVERY = {Ref(s, e) for s, size in enumerate(SIZES) for e in range(size)}


def planner(mode: str, size: float, seed: int = 1, stage: int = 0, **kw) -> StepPlanner:
    if mode == "packed":
        mode, kw = "cost", {"rank_size": size / 4, **kw}
    return StepPlanner(files(SIZES), COSTS, mode, size, seed, stage, **kw)


def epoch_of(plan: StepPlanner, ranks: int, epoch: int = 0) -> list:
    steps, position = [], 0
    while position < plan.units:
        steps.append(plan.step(epoch, position, ranks))
        position = steps[-1].next_position
    return steps


MODES = [
    ("files", 1), ("files", 2), ("events", 4), ("cost", 50.0), ("cost", 1e-3), ("cost", 1e9), ("packed", 100.0),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "size"), MODES)
@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_an_epoch_has_every_event_exactly_once(mode, size, ranks):
    plan = planner(mode, size)
    for epoch in (0, 7):
        steps = epoch_of(plan, ranks, epoch)
        seen = Counter(ref for step in steps for ref in step.refs)
        assert set(seen) == EVERY
        assert set(seen.values()) == {1}
        assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
        assert plan.steps_in(epoch, ranks) == len(steps)
        for number, step in enumerate(steps):
            assert plan.steps_before(epoch, step.position, ranks) == number
            assert step.costs == tuple(COSTS[plan.first[ref.shard] + ref.event] for ref in step.refs)


@pytest.mark.parametrize(("mode", "size"), [("events", 4), ("cost", 50.0), ("packed", 100.0)])
def test_steps_of_fixed_size_or_cost_do_not_depend_on_the_number_of_ranks(mode, size):
    plan = planner(mode, size)
    assert epoch_of(plan, 1) == epoch_of(plan, 5)


def test_a_step_of_fixed_cost_keeps_to_the_budget_unless_one_event_exceeds_it():
    for step in epoch_of(planner("cost", 50.0), 1):
        assert sum(step.costs) <= 50 or len(step.refs) == 1
    assert all(len(step.refs) == 1 for step in epoch_of(planner("cost", 1e-3), 1) if max(step.costs) > 0)


def test_one_file_per_rank_and_step_and_the_last_step_is_short_without_repeats():
    plan = planner("files", 1)
    steps = epoch_of(plan, 4)  # 6 files that are not empty
    assert [len({ref.shard for ref in step.refs}) for step in steps] == [4, 2]
    for step in steps:
        parts = [share(step, rank, 4, whole_files=True).micro_batches for rank in range(4)]
        homes = [{ref.shard for refs, _ in part for ref in refs} for part in parts]
        busy = len(set().union(*homes))
        assert sorted(map(len, homes)) == [0] * (4 - busy) + [1] * busy


def test_a_mid_epoch_position_goes_on_at_the_right_file_with_other_ranks():
    plan = planner("files", 1)
    first = plan.step(3, 0, 2)
    rest = []
    position = first.next_position
    while position < plan.units:
        step = plan.step(3, position, 3)
        rest += step.refs
        position = step.next_position
    assert len(first.refs) + len(rest) == len(EVERY)
    assert set(first.refs) | set(rest) == EVERY


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_a_step_is_a_pure_function_of_seed_stage_epoch_and_position(mode, size):
    one, two = planner(mode, size), planner(mode, size)
    wanted = epoch_of(one, 2, epoch=4)
    assert two.step(4, wanted[-1].position, 2) == wanted[-1]  # asked for alone, out of order
    assert two.step(0, 0, 2) == one.step(0, 0, 2)


def test_epochs_seeds_and_stages_shuffle_differently():
    orders = [
        tuple(ref for step in epoch_of(plan, 1, epoch) for ref in step.refs)
        for plan, epoch in [
            (planner("events", 4), 0),
            (planner("events", 4), 1),
            (planner("events", 4, seed=2), 0),
            (planner("events", 4, stage=1), 0),
        ]
    ]
    assert len(set(orders)) == 4
    plain = [ref for step in epoch_of(planner("events", 4, shuffle=False), 1) for ref in step.refs]
    assert plain == sorted(EVERY)


def test_the_stream_goes_on_over_epochs_and_from_any_position():
    plan = planner("events", 4)
    stream = plan.stream(2, 8, ranks=1)
    taken = [next(stream) for _ in range(6)]
    assert taken[0] == plan.step(2, 8, 1)
    ends = [number for number, step in enumerate(taken) if step.last]
    assert taken[ends[0] + 1] == plan.step(3, 0, 1)
    assert next(plan.stream(0, plan.units)) == plan.step(1, 0, 1)


def test_settings_that_make_no_plan_are_refused():
    for mode, size in [("shards", 1), ("files", 0), ("events", 1.5), ("cost", -1.0), ("cost", float("nan"))]:
        with pytest.raises(PlanError):
            planner(mode, size)
    with pytest.raises(PlanError, match="empty"):
        StepPlanner(files([0, 0]), np.zeros(0), "files", 1, 0)
    with pytest.raises(PlanError, match="costs"):
        StepPlanner(files([2]), np.zeros(3), "files", 1, 0)
    with pytest.raises(PlanError, match="finite"):
        StepPlanner(files([2]), np.array([1.0, np.nan]), "files", 1, 0)
    with pytest.raises(PlanError, match="position"):
        planner("events", 2).step(0, 21, 1)


def test_the_order_of_a_seed_never_changes():
    """Golden: a resumed run may use another version of numpy."""
    first = planner("files", 1).step(0, 0, 6)
    assert list(dict.fromkeys(ref.shard for ref in first.refs)) == [5, 3, 0, 2, 7, 4]
