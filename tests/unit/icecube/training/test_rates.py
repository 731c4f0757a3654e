"""Learning rates of the users' configs, and what Keras' optimizers need to be in torch."""

from __future__ import annotations

import pytest
import torch

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube import rates
from hpcreco.experiments.icecube.settings import Schedule


def decay(begin, end, steps, power=1.0):
    settings = {
        "initial_learning_rate": begin,
        "end_learning_rate": end,
        "decay_steps": steps,
        "power": power,
    }
    return {"name": "PolynomialDecay", "settings": settings}


def multi(boundaries, *parts):
    return Schedule(name=rates.MULTI, settings={"boundaries": boundaries, "scheduler_settings": list(parts)})


THREE = multi(
    [10_000, 500_000],
    decay(0.01, 0.001, 10_000),
    decay(0.001, 0.001, 490_000),
    decay(0.001, 1e-6, 500_000, 2),
)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.01),
        (5_000, 0.0055),
        (10_000, 0.001),
        (250_000, 0.001),
        (750_000, 2.5075e-4),
        (1_000_000, 1e-6),
        (2_000_000, 1e-6),
    ],
)
def test_the_users_three_segments(step, rate):
    assert rates.course(THREE)(step) == pytest.approx(rate, rel=1e-12)


def test_every_one_of_many_segments_is_its_own():
    """The original's inner segments all became the last one."""
    made = rates.course(multi([10, 20, 30], 1.0, 2.0, 3.0, 4.0))
    assert [made(step) for step in (0, 10, 11, 20, 21, 30, 31, 99)] == [1, 1, 2, 2, 3, 3, 4, 4]
    falling = rates.course(multi([10, 20, 30], *(decay(k, 0.0, 10) for k in (1.0, 2.0, 3.0, 4.0))))
    assert [falling(s) for s in (5, 15, 25, 35)] == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_other_schedules_of_keras():
    exponential = rates.course(
        Schedule(
            name="ExponentialDecay",
            settings={"initial_learning_rate": 1.0, "decay_steps": 10, "decay_rate": 0.5},
        )
    )
    assert exponential(20) == pytest.approx(0.25)
    cosine = rates.course(
        Schedule(name="CosineDecay", settings={"initial_learning_rate": 2.0, "decay_steps": 10})
    )
    assert [cosine(s) for s in (0, 5, 10, 50)] == pytest.approx([2.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(name="PolynomialDecy"), "did you mean 'PolynomialDecay'"),
        (Schedule(name="PolynomialDecay", settings={"initial": 1}), "initial"),
        (multi([10], 1.0), "1 boundaries part 2 schedules, found 1"),
        (multi([20, 10], 1.0, 2.0, 3.0), "must rise"),
    ],
)
def test_wrong_schedules_are_explained(schedule, expected):
    with pytest.raises(ConfigError, match=expected):
        rates.course(schedule)


def test_the_schedule_sets_every_group_and_needs_no_state():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [w]} for w in weights], lr=9.0)
    schedule = rates.StepSchedule(optimizer, rates.course(THREE))
    schedule.before_step(5_000)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.0055)] * 2
    assert schedule.state_dict() == {}


def test_keras_arguments_become_torchs():
    weights = [torch.nn.Parameter(torch.ones(1))]
    adam = rates.optimizer(weights, "Adam", {}, 0.01)
    assert adam.defaults["eps"] == 1e-7
    given = rates.optimizer(weights, "Adam", {"beta_1": 0.8, "epsilon": 1e-3, "amsgrad": True}, 0.01)
    assert (given.defaults["betas"], given.defaults["eps"], given.defaults["amsgrad"]) == (
        (0.8, 0.999),
        1e-3,
        True,
    )
    assert isinstance(rates.optimizer(weights, "Nadam", {}, 0.1), torch.optim.NAdam)
    with pytest.raises(ConfigError):
        rates.optimizer(weights, "Adamm", {}, 0.1)
