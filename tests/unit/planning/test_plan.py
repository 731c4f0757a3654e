"""A run of several stages: times add up, and the efficiency is still the speed of R ranks over R times that of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcreco.planning import advice, sites, tables
from hpcreco.planning.measurement import Line
from hpcreco.planning.network import Network
from hpcreco.planning.plan import Plan
from hpcreco.planning.prediction import Predictor
from hpcreco.slurm.scripts import shipped_jobs
from hpcreco.train.task import Stage

STAGES = (Stage("frozen", epochs=2), Stage("whole"))


@pytest.fixture
def staged(predictor):
    """``staged(stages, ..., the arguments of predictor)``: a plan whose first stage costs a third of the others."""

    def make(*arguments, stages=STAGES, **more) -> Plan:
        one = predictor(*arguments, **more)
        measured = [
            replace(
                one.measured.scaled(1.0 if number else 1 / 3), stage=stage.name, start=0.0 if number else 7.0
            )
            for number, stage in enumerate(stages)
        ]
        return Plan(
            tuple(
                Predictor(replace(one.work, stages=stages, number=number), found)
                for number, found in enumerate(measured)
            )
        )

    return make


def test_times_of_stages_add_up(staged):
    row = staged(np.full(32, 10.0), "events", 8, keys={"epochs": 5}).predict(2)
    frozen, whole = row.stages
    assert (frozen.stage, frozen.rows, whole.stage, whole.rows) == ("frozen", 2, "whole", 3)
    assert frozen.spent == pytest.approx(2 * 32 * 10e-3 / 3 / 2)
    assert whole.spent == pytest.approx(3 * 32 * 10e-3 / 2)
    total = row.total
    assert (total.stage, total.steps, total.rows, total.steps_per_epoch) == ("all", 20, 5, 4)
    assert total.spent == pytest.approx(frozen.spent + whole.spent)
    assert total.run == pytest.approx(7.0 + frozen.run + whole.run)
    assert total.step == pytest.approx(total.spent / 20)
    assert total.efficiency == pytest.approx(1.0)


def test_the_efficiency_of_a_run_is_that_of_its_time(staged):
    costs = np.random.default_rng(0).lognormal(2, 1, 60)
    made = staged(
        costs,
        "events",
        6,
        budget=20.0,
        validation=costs[:7],
        forward_backward=Line(2e-3, 1e-3),
        forward=Line(1e-3, 0.4e-3),
        update=3e-3,
        save=0.2,
        gradients=(1e6, 5e5),
        packing=1e-3,
        network=Network(1e-4, 1e9),
    )
    alone = made.predict(1).total
    for ranks in (1, 2, 3, 8):
        row = made.predict(ranks).total
        assert row.efficiency == pytest.approx(alone.spent / row.spent / ranks)


def test_one_stage_is_the_run(staged):
    row = staged([10.0] * 8, "events", 4, stages=(Stage("main"),)).predict(2)
    assert row.total is row.stages[0]
    assert row.total.run == pytest.approx(7.0 + row.total.spent)


@pytest.mark.parametrize(
    ("stages", "keys", "said", "known"),
    [
        (STAGES, {"epochs": 2}, "the run ends before stage whole begins", True),
        (STAGES, {"epochs": 9}, "", True),
        (STAGES, {"epochs": None}, "a metric ends stage whole: one epoch", False),
        ((Stage("a", until=bool), Stage("b")), {"epochs": 4}, "a metric ends stage a: one epoch", True),
        ((Stage("a", until=bool, epochs=2), Stage("b")), {}, "a metric may end stage a sooner", True),
    ],
)
def test_ends_that_are_not_known_are_said(staged, stages, keys, said, known):
    made = staged([10.0] * 8, "events", 4, stages=stages, keys=keys)
    row = made.predict(1)
    nodes = advice.Nodes(sites.read("local", shipped_jobs()), 1)
    sentences = " ".join(advice.warnings(made, [row], nodes))
    assert said in sentences
    assert ("stage" in sentences) == bool(said)
    assert (row.total.run is not None) == known


def test_tables_have_a_line_for_the_run_and_each_stage(staged):
    made = staged([10.0] * 3 + [50.0], "events", 4)
    nodes = advice.Nodes(sites.read("local", shipped_jobs()), 1)
    shown = tables.table([made.predict(ranks) for ranks in (1, 2)], nodes).splitlines()
    assert [line.split()[:3] for line in shown[:2]] == [["nodes", "ranks", "stage"], ["1", "1", "all"]]
    assert [line.split()[0] for line in shown[2:4]] == ["frozen", "whole"]
    assert all(line.endswith("GB*") for line in shown[1:])  # measured up to a cost of 10
    notes = " ".join(advice.assumptions(made, [made.predict(1)], nodes))
    assert "on 1 rank(s) in stage frozen, costs 80 and was not measured" in notes
    assert "8.0-fold from a cost of 10" in notes
