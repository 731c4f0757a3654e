"""Optimizers and schedules by name: rates as functions of the step, scaling, warm-up, plateau, and
resuming.
"""

from __future__ import annotations

import io
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from hpcreco.config import ConfigError
from hpcreco.train.schedule import RateSchedule, build_optimizer, scale, warmup
from hpcreco.train.task import Pace


def make(optimizer="SGD", lr=0.1, pace=(10, 1), optimizer_arguments=None, **rates):
    parameters = [nn.Parameter(torch.ones(3, 2))]
    built = build_optimizer(parameters, optimizer, {"lr": lr, **(optimizer_arguments or {})})
    return built, RateSchedule(built, Pace(*pace), **rates)


def rates_at(steps, **arguments):
    """The learning rate at each of `steps`, asked for in this order."""
    optimizer, schedule = make(**arguments)
    found = []
    for step in steps:
        schedule.before_step(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def torchs_own(name, steps, lr=0.1, **arguments):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = getattr(lr_scheduler, name)(optimizer, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_without_a_scheduler_the_rate_stays():
    assert rates_at(range(25)) == [0.1] * 25


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StepLR", {"step_size": 3, "gamma": 0.5}),
        ("MultiStepLR", {"milestones": [2, 5]}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingLR", {"T_max": 20}),
        ("CosineAnnealingWarmRestarts", {"T_0": 4}),
        ("PolynomialLR", {"total_iters": 15}),
    ],
)
def test_torch_schedulers_by_steps_are_torchs_own(name, arguments):
    ours = rates_at(range(20), scheduler=name, arguments=arguments, interval="step")
    assert ours == pytest.approx(torchs_own(name, 20, **arguments))


def test_by_epochs_the_rate_holds_within_an_epoch():
    ours = rates_at(range(40), scheduler="ExponentialLR", arguments={"gamma": 0.5})
    assert ours == pytest.approx([0.1 * 0.5 ** (step // 10) for step in range(40)])


def test_one_cycle_takes_its_length_from_the_run_and_stays_at_its_end():
    own = torchs_own("OneCycleLR", 29, max_lr=0.1, total_steps=30)
    ours = rates_at(range(45), scheduler="OneCycleLR", epochs=3)
    assert ours[:29] == pytest.approx(own)
    assert len(set(ours[29:])) == 1
    assert ours[29] < 1e-5
    assert rates_at(range(30), scheduler="OneCycleLR", iterations=30) == pytest.approx(ours[:30])


def test_one_cycle_moves_the_betas_of_adam():
    optimizer, schedule = make("Adam", scheduler="OneCycleLR", epochs=2)
    betas = []
    for step in range(20):
        schedule.before_step(step)
        betas.append(optimizer.param_groups[0]["betas"][0])
    assert min(betas) == pytest.approx(0.85, abs=1e-3)
    assert betas[0] == pytest.approx(0.95)


def test_cosine_takes_its_length_from_the_run():
    by_epoch = rates_at(range(0, 100, 10), scheduler="CosineAnnealingLR", epochs=10)
    assert by_epoch == pytest.approx(torchs_own("CosineAnnealingLR", 10, T_max=10))
    by_step = rates_at(range(100), scheduler="CosineAnnealingLR", epochs=10, interval="step")
    assert by_step == pytest.approx(torchs_own("CosineAnnealingLR", 100, T_max=100))


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1.0), ("linear", 16.0), ("sqrt", 4.0)])
def test_scaling_with_ranks(scaling, factor):
    assert scale(scaling, 16) == factor
    assert rates_at([0, 50], scaling=scaling, pace=(10, 16)) == pytest.approx([0.1 * factor] * 2)


def test_warm_up_leads_from_the_rate_of_one_rank_to_the_scaled_one():
    ours = rates_at(range(30), scaling="linear", pace=(10, 8), warmup_epochs=2)
    assert ours[0] == pytest.approx(0.1)
    assert ours[20:] == pytest.approx([0.8] * 10)
    steps = [b - a for a, b in pairwise(ours[:21])]
    assert steps == pytest.approx([0.7 / 20] * 20)


def test_warm_up_without_scaling_does_not_depend_on_the_ranks():
    one, many = (rates_at(range(12), pace=(10, ranks), warmup_epochs=1) for ranks in (1, 64))
    assert one == many
    assert 0 < one[0] < 0.02
    assert one == sorted(one)
    assert one[10:] == [0.1, 0.1]
    assert warmup(0, 0.0, 0.5) == 1.0


def test_scaling_warm_up_and_scheduler_multiply():
    ours = rates_at(
        range(30),
        scaling="sqrt",
        pace=(10, 4),
        warmup_epochs=1,
        scheduler="ExponentialLR",
        arguments={"gamma": 0.5},
    )
    expected = [0.1 * 2 * warmup(s, 10, 0.5) * 0.5 ** (s // 10) for s in range(30)]
    assert ours == pytest.approx(expected)


def test_rates_are_a_function_of_the_step_wherever_one_starts():
    arguments = {"scheduler": "CosineAnnealingLR", "epochs": 5, "interval": "step", "warmup_epochs": 1}
    assert rates_at([37], **arguments) == pytest.approx(rates_at(range(38), **arguments)[-1:])


def test_groups_keep_their_own_rates():
    parameters = [
        {"params": [nn.Parameter(torch.ones(1))], "lr": 0.1},
        {"params": [nn.Parameter(torch.ones(1))], "lr": 0.01},
    ]
    optimizer = build_optimizer(parameters, "SGD", {"momentum": 0.9})
    schedule = RateSchedule(
        optimizer, Pace(10, 4), scaling="linear", scheduler="ExponentialLR", arguments={"gamma": 0.1}
    )
    schedule.before_step(10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.04, 0.004])


def plateau(**rates):
    arguments = {"patience": 1, "factor": 0.1, "mode": "max"}
    return make(scheduler="ReduceLROnPlateau", arguments=arguments, metric="acc", **rates)


def test_plateau_lowers_the_rate_when_its_column_stays():
    optimizer, schedule = plateau(scaling="linear", pace=(10, 2))
    rates = []
    for epoch, value in enumerate([0.5, 0.6, math.nan, 0.6, 0.6, 0.6, 0.6]):
        schedule.before_step(10 * epoch)
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.after_epoch({"valid_acc": value, "train_acc": 1.0})
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2, 0.02, 0.02])


def test_plateau_names_the_columns_there_are():
    with pytest.raises(ConfigError, match="no column 'acc'; it will have loss"):
        plateau(columns=["valid_loss"])
    _, schedule = plateau()
    with pytest.raises(ConfigError, match="no column 'acc'; it will have loss"):
        schedule.after_epoch({"valid_loss": 1.0})


@pytest.mark.parametrize(
    "rates",
    [
        {"scheduler": "CosineAnnealingLR", "epochs": 5, "interval": "step"},
        {"scheduler": "OneCycleLR", "epochs": 5},
        {"scheduler": "CosineAnnealingWarmRestarts", "arguments": {"T_0": 7}, "interval": "step"},
        {"scheduler": "StepLR", "arguments": {"step_size": 2}},
        {"scheduler": "ReduceLROnPlateau", "arguments": {"patience": 0, "factor": 0.5}},
        {"warmup_epochs": 2, "scaling": "sqrt"},
    ],
)
def test_resumed_equals_straight_bit_for_bit(rates):
    def run(optimizer, schedule, start, end):
        found = []
        for step in range(start, end):
            schedule.before_step(step)
            group = optimizer.param_groups[0]
            found.append((group["lr"], tuple(group["betas"])))
            if step % 10 == 9:
                schedule.after_epoch({"valid_loss": 1.0 + step % 4})
        return found

    straight = run(*make("Adam", pace=(10, 4), **rates), 0, 50)
    optimizer, schedule = make("Adam", pace=(10, 4), **rates)
    first = run(optimizer, schedule, 0, 23)
    saved = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    optimizer, schedule = make("Adam", pace=(10, 4), **rates)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    assert first + run(optimizer, schedule, 23, 50) == straight


@pytest.mark.parametrize(
    "name", sorted({n for n in vars(torch.optim) if n[0].isupper()} - {"Optimizer", "LBFGS", "SparseAdam"})
)
def test_every_optimizer_of_torch_can_be_used(name):
    optimizer, schedule = make(name, scheduler="ExponentialLR", arguments={"gamma": 0.9})
    schedule.before_step(20)
    parameter = optimizer.param_groups[0]["params"][0]
    before = parameter.detach().clone()
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.81)
    assert not torch.equal(before, parameter)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"optimizer": "Adamm"}, "did you mean 'Adam'"),
        ({"optimizer": "LBFGS"}, "several times"),
        ({"optimizer": "Adam", "optimizer_arguments": {"beta": 1}}, "did you mean 'betas'"),
        ({"optimizer": "Adam", "lr": -1}, "Invalid learning rate"),
        ({"scheduler": "CosineLR"}, "schedule.name"),
        ({"scheduler": "StepLR", "arguments": {"step": 1}}, "did you mean 'step_size'"),
        ({"scheduler": "StepLR"}, "step_size"),
        ({"scheduler": "LambdaLR"}, "a config cannot name"),
        ({"scheduler": "OneCycleLR"}, "train.n_epochs"),
    ],
)
def test_mistakes_are_config_errors(rates, said):
    with pytest.raises(ConfigError) as error:
        make(**rates)
    assert said in str(error.value)


def test_nothing_to_train_is_said():
    with pytest.raises(ConfigError, match="no parameter"):
        build_optimizer([], "Adam", {})
