"""The simulated loads are those that the ranks' own shares add up to."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco.data.balance import Balance, simulate
from hpcreco.data.plan import PlanError, StepPlanner
from hpcreco.data.sharing import share
from tests.unit.data.test_plan import COSTS, SIZES, files


@pytest.mark.parametrize(("mode", "size"), [("files", 1), ("events", 4), ("cost", 50.0)])
@pytest.mark.parametrize(("ranks", "budget"), [(1, None), (3, 30.0), (40, None)])
def test_loads_events_and_passes_are_those_of_the_shares(mode, size, ranks, budget):
    plan = StepPlanner(files(SIZES), COSTS, mode, size, seed=3)
    found = simulate(plan, ranks, epoch=2, budget=budget)
    assert len(found.loads) == plan.steps_in(2, ranks)
    assert found.events.sum() == len(COSTS)
    assert found.loads.sum() == pytest.approx(COSTS.sum())
    position = 0
    for number in range(len(found.loads)):
        step = plan.step(2, position, ranks)
        position = step.next_position
        for rank in range(ranks):
            mine = share(step, rank, ranks, budget, whole_files=mode == "files")
            assert len(mine.micro_batches) == found.passes[number]
            assert sum(len(refs) for refs, _ in mine.micro_batches) == found.events[number, rank]
            costs = [cost for _, batch in mine.micro_batches for cost in batch]
            assert sum(costs) == pytest.approx(found.loads[number, rank])
            assert sum(mine.micro_batches[-1][1]) == pytest.approx(found.last[number, rank])
            assert mine.efficiency == pytest.approx(found.efficiency[number])


def test_so_many_steps_go_on_into_the_next_epoch():
    plan = StepPlanner(files(SIZES), COSTS, "events", 4, seed=3)
    per_epoch = plan.steps_in(0, 2)
    two = simulate(plan, 2, steps=2 * per_epoch)
    for epoch in (0, 1):
        one = simulate(plan, 2, epoch)
        part = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        np.testing.assert_array_equal(two.loads[part], one.loads)


def test_long_steps_count_more_in_the_overall_efficiency_than_in_the_mean():
    loads = np.array([[1.0, 3.0], [100.0, 100.0]])
    found = Balance(loads, np.ones((2, 2), int), np.ones(2, int), loads)
    np.testing.assert_allclose(found.efficiency, [2 / 3, 1.0])
    assert found.overall == pytest.approx(102 / 103)
    assert found.quantiles([0.0, 1.0]) == {0.0: pytest.approx(2 / 3), 1.0: 1.0}


def test_events_that_cost_nothing_leave_no_one_waiting():
    plan = StepPlanner(files([6]), np.zeros(6), "events", 4, seed=0)
    found = simulate(plan, 3)
    assert found.overall == 1.0
    np.testing.assert_array_equal(found.efficiency, [1.0, 1.0])


def test_without_ranks_or_steps_there_is_nothing_to_simulate():
    plan = StepPlanner(files([6]), np.ones(6), "events", 4, seed=0)
    for wrong in ({"ranks": 0}, {"ranks": 2, "steps": 0}):
        with pytest.raises(PlanError, match="at least one"):
            simulate(plan, **wrong)
