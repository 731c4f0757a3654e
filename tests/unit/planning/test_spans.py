"""How much of a run each stage is, against the training loop's rules applied step by step."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco.config import Cadence, Run
from hpcreco.planning.spans import spans
from hpcreco.train.task import Stage
from tests.unit.planning.conftest import Settings

PER_EPOCH = 8
ONE = (Stage("main"),)


def run_of(**keys) -> Run:
    return Run(experiment="toy", output_dir="out", settings=Settings(), **keys)


def stepped(run, stages):
    """(steps, rows) of each stage, counted as `hpcreco.train.loop` does."""
    found = [[0, 0] for _ in stages]
    number = epoch = step = 0
    while number < len(stages):
        stage, own = stages[number], found[number]
        in_epoch = 0
        while True:
            step, in_epoch, own[0] = step + 1, in_epoch + 1, own[0] + 1
            if step == run.iterations or own[0] == stage.steps or in_epoch == PER_EPOCH:
                break
        epoch, own[1] = epoch + 1, own[1] + 1
        if epoch == run.epochs or step == run.iterations:
            break
        number += own[1] == stage.epochs or own[0] == stage.steps
    return found


def test_stages_end_as_the_training_loop_ends_them():
    rng = np.random.default_rng(1)

    def maybe(most):
        return int(rng.integers(1, most)) if rng.random() < 0.6 else None

    for _ in range(300):
        stages = [Stage(str(number), epochs=maybe(5), steps=maybe(40)) for number in range(3)]
        epochs, iterations = (
            (None, int(rng.integers(1, 90))) if rng.random() < 0.5 else (int(rng.integers(1, 9)), None)
        )
        run = run_of(epochs=epochs, iterations=iterations)
        found = spans(run, stages, PER_EPOCH)
        assert [[span.steps, span.rows] for span in found] == stepped(run, stages)
        assert all(span.ends for span in found)
        reached = [span for span in found if span.steps]
        assert [span.last for span in reached] == [False] * (len(reached) - 1) + [True]
        assert [span.begins for span in reached] == np.cumsum(
            [0, *(span.rows for span in reached[:-1])]
        ).tolist()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"epochs": 3}, (24, 3, 3, True)),
        ({"epochs": 3, "validate_every": Cadence(every=2)}, (24, 2, 3, True)),
        ({"epochs": 5, "save": Cadence(every=2)}, (40, 5, 2, True)),
        ({"iterations": 20, "save": Cadence(every=5, unit="steps")}, (20, 3, 4, True)),
        ({"epochs": 3, "save": Cadence(every=6, unit="seconds")}, (24, 3, 8, True)),
        ({}, (8, 1, 1, False)),
    ],
)
def test_steps_validations_and_checkpoints_of_a_run(keys, expected):
    run = run_of(**keys)
    (span,) = spans(run, ONE, PER_EPOCH)
    assert (span.steps, span.validations(run), span.saves(run, 2.0), span.ends) == expected


def test_validations_of_stages_add_up_to_those_of_the_run():
    stages = (Stage("a", epochs=2), Stage("b", steps=11), Stage("c"))
    for every in (1, 2, 3, 5):
        run = run_of(epochs=7, validate_every=Cadence(every=every))
        (whole,) = spans(run, ONE, PER_EPOCH)
        parts = spans(run, stages, PER_EPOCH)
        assert sum(part.validations(run) for part in parts) == whole.validations(run)


def test_a_metric_ends_a_stage_nobody_knows_when():
    until = Stage("a", until=lambda row: True)
    open_end, rest = spans(run_of(epochs=5), (until, Stage("b")), PER_EPOCH)
    assert (open_end.steps, open_end.ends) == (PER_EPOCH, False)
    assert (rest.steps, rest.ends) == (4 * PER_EPOCH, True)
    (at_most,) = spans(run_of(epochs=5), (until,), PER_EPOCH)
    assert (at_most.steps, at_most.ends) == (5 * PER_EPOCH, True)
