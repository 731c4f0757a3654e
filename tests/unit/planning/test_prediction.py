"""Predicted times against closed forms: equal costs lose nothing, each loss appears under its own name."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco.planning import prediction
from hpcreco.planning.measurement import Line
from hpcreco.planning.network import Network

RANKS = [1, 2, 3, 4, 8]
LOSSES = ("balance", "fixed", "network", "upkeep")


def losses(row):
    return {name: getattr(row, name) for name in LOSSES}


@pytest.mark.parametrize(("mode", "size"), [("events", 16), ("cost", 160.0), ("files", 1)])
def test_equal_costs_lose_nothing(predictor, mode, size):
    made = predictor(np.full(64, 10.0), mode, size)
    for ranks in (1, 2, 4, 8, 16):
        row = made.predict(ranks)
        assert losses(row) == pytest.approx(dict.fromkeys(LOSSES, 0.0), abs=1e-12)
        assert row.efficiency == pytest.approx(1.0)
        assert row.epoch == pytest.approx(64 * 10e-3 / ranks)
        assert row.run == pytest.approx(3 * 64 * 10e-3 / ranks)


@pytest.mark.parametrize(("mode", "size"), [("events", 5), ("cost", 60.0), ("files", 2)])
def test_the_efficiency_is_the_speed_of_an_epoch_over_that_of_one_rank(predictor, mode, size):
    """What is not lost, whatever the costs and losses are."""
    costs = np.random.default_rng(0).lognormal(2, 1, 60)
    made = predictor(
        costs,
        mode,
        size,
        budget=20.0,
        validation=costs[:7],
        forward_backward=Line(2e-3, 1e-3),
        forward=Line(1e-3, 0.4e-3),
        update=3e-3,
        save=0.2,
        gradients=(1e6, 5e5),
        network=Network(1e-4, 1e9),
        reading=Line(0.0, 1e-5),
    )
    alone = made.predict(1)
    assert alone.efficiency == pytest.approx(1.0)
    for ranks in RANKS:
        row = made.predict(ranks)
        assert row.efficiency == pytest.approx(alone.run / row.run / ranks)
        assert all(-1e-12 <= lost < 1 for lost in losses(row).values())


def test_a_loss_appears_under_its_name_alone(predictor):
    even = np.full(32, 10.0)
    rest = dict.fromkeys(LOSSES, pytest.approx(0.0, abs=1e-12))
    slow = predictor(even, "events", 8, forward_backward=Line(0.02, 1e-3), update=0.02).predict(4)
    assert losses(slow) == rest | {"fixed": pytest.approx((0.04 - 0.01) / (0.02 + 0.04))}
    gradients = predictor(even, "events", 8, gradients=(1e8,), overlap=False).predict(4)
    assert losses(gradients) == rest | {"network": pytest.approx(0.15 / (0.02 + 0.15))}
    kept = predictor(even, "events", 8, save=0.04).predict(4)
    assert losses(kept) == rest | {"upkeep": pytest.approx((0.04 - 0.01) / (0.08 + 0.04))}
    lone = predictor(np.r_[np.full(4, 10.0), np.full(4, 2.0)], "events", 8).predict(4)
    assert losses(lone) == rest | {"balance": pytest.approx(0.0, abs=1e-12)}
    uneven = predictor([30.0, 10.0, 10.0, 10.0], "events", 4).predict(4)
    assert losses(uneven) == rest | {"balance": pytest.approx(0.5)}


def test_gradients_hide_behind_the_last_backward(predictor):
    costs = np.full(32, 10.0)
    network = {"gradients": (1e6,) * 4, "network": Network(0.0, 1e9)}
    bare = predictor(costs, "events", 8, overlap=False, **network).predict(4)
    hidden = predictor(costs, "events", 8, **network).predict(4)
    assert hidden.step == pytest.approx(bare.step - 0.75 * 4 * 2e-3 * 0.75)
    several = predictor(costs, "events", 8, budget=10.0, **network).predict(4)
    assert several.passes == 2
    assert several.step == pytest.approx(bare.step - 3 * 1.5e-3)  # 6 ms of backward, the last bucket after it
    work = predictor(costs, "events", 8, packing=2e-3, **network)
    assert work.predict(4).step == pytest.approx(hidden.step + 2e-3)
    assert work.predict(1).step == pytest.approx(0.08)  # a rank alone packs nothing


def test_a_file_a_rank_makes_fewer_and_larger_steps(predictor):
    files = predictor(np.full(64, 10.0), "files", 1)
    assert [files.predict(ranks).steps_per_epoch for ranks in (1, 4, 64)] == [64, 16, 1]
    assert [files.predict(ranks).events_per_step for ranks in (1, 4, 64)] == [1, 4, 64]
    events = predictor(np.full(64, 10.0), "events", 4)
    assert {events.predict(ranks).steps_per_epoch for ranks in (1, 4, 64)} == {16}


def test_idle_ranks_are_seen(predictor):
    made = predictor(np.full(12, 10.0), "events", 4)
    assert prediction.useful(made.work.planner) == 4
    row = made.predict(16)
    assert row.idle == pytest.approx(0.75)
    assert row.even == pytest.approx(0.25)
    assert row.balance == pytest.approx(0.75)


def test_reading_that_is_slower_than_computing_is_waited_for(predictor):
    row = predictor(np.full(8, 10.0), "events", 2, reading=Line(0.0, 3e-3)).predict(1)
    assert row.step == pytest.approx(0.06)
    assert row.reading == pytest.approx(3.0)


def test_memory_is_that_of_the_largest_micro_batch_and_what_is_read_ahead(predictor):
    costs = [10.0, 20.0, 30.0, 40.0]
    ahead = 3 * 100.0  # prefetch 2 and the one at work, 100 bytes a unit
    assert predictor(costs, "events", 4).predict(1).memory == pytest.approx(1e8 + 1e4 * 100 + ahead * 100)
    assert predictor(costs, "events", 4).predict(4).memory == pytest.approx(1e8 + 1e4 * 40 + ahead * 40)
    cut = predictor(costs, "events", 4, budget=50.0).predict(1)
    assert cut.memory == pytest.approx(1e8 + 1e4 * 50 + ahead * 100)
    alone = predictor(costs, "events", 4, budget=15.0).predict(1)  # an event is never cut
    assert alone.memory == pytest.approx(1e8 + 1e4 * 40 + ahead * 100)


def test_larger_batches_than_were_measured_are_said_to_be_extrapolated(predictor):
    made = predictor([10.0, 20.0, 30.0, 40.0], "events", 4)  # measured up to a cost of 10
    assert [made.predict(ranks).beyond for ranks in (1, 4)] == [pytest.approx(10), pytest.approx(4)]
    assert made.predict(4).extrapolated
    assert not predictor([10.0] * 4, "events", 1).predict(1).extrapolated


def test_validation_events_are_those_that_training_looks_at(predictor):
    run = predictor([1.0], keys={"validation_events": 3}).work.run
    assert prediction.validated(run, np.arange(10.0)).tolist() == [0, 3, 6]
    assert prediction.validated(run, np.arange(2.0)).tolist() == [0, 1]
    assert prediction.validated(run, None).tolist() == []


def test_networks_too_small_to_measure_are_all_fixed_cost(predictor):
    made = predictor(np.full(32, 10.0), "events", 8, forward_backward=Line(0.01, 0.0), update=0.01)
    row = made.predict(4)
    assert row.fixed == pytest.approx(0.75, rel=1e-3)
    assert row.efficiency == pytest.approx(0.25, rel=1e-3)
