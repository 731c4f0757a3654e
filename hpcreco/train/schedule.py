"""Optimizers and learning rates by name.

The rate at a step is a product of three: the rate of a torch scheduler, scaling with the number of ranks, and
warm-up. The last two are functions of the step alone, the first is too, except for ReduceLROnPlateau, which
depends on the epochs' summaries.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from hpcreco import lean
from hpcreco.config import ConfigError
from hpcreco.nn import lookup
from hpcreco.train.task import Pace

Scaling = Literal["none", "linear", "sqrt"]
Interval = Literal["step", "epoch"]

#: schedulers that torch documents as moved after every step
_BY_STEP = ("OneCycleLR", "CyclicLR")
#: arguments that a config cannot give, because they are objects
_OBJECTS = ("schedulers", "lr_lambda")

#: the part of torch schedulers' state that changes while they move
_MOVING = (
    "last_epoch",
    "_step_count",
    "_last_lr",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "T_cur",
    "T_i",
)


def scale(scaling: Scaling, ranks: int) -> float:
    """How many times larger the learning rate is on `ranks` ranks (linear: Goyal et al., 1706.02677)."""
    return {"none": 1.0, "linear": float(ranks), "sqrt": math.sqrt(ranks)}[scaling]


def warmup(step: int, steps: float, start: float) -> float:
    """Factor at `step` (0-based): from `start` straight up to 1, which is reached at step number `steps`."""
    if step >= steps:
        return 1.0
    return start + (1.0 - start) * step / steps


class RateSchedule:
    """Sets the learning rates of `optimizer`; fits `hpcreco.train.task.Schedule`.

    The torch scheduler moves a shadow of the optimizer, so the base rate never mixes with scaling and
    warm-up. Momentum and betas that it cycles are taken over as they are. A scheduler that ends (OneCycleLR)
    stays at its last rate.

    metric: the column, or the part of it behind ``valid_``, that ReduceLROnPlateau watches.
    columns: those that summaries will have, to refuse another `metric` (ConfigError) before the first epoch has passed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        pace: Pace,
        *,
        scaling: Scaling = "none",
        warmup_epochs: float = 0.0,
        scheduler: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        interval: Interval | None = None,
        metric: str | None = None,
        columns: Collection[str] | None = None,
        epochs: int | None = None,
        iterations: int | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._steps_per_epoch = max(1, pace.steps_per_epoch)
        self._scale = scale(scaling, pace.ranks)
        self._warmup_steps = warmup_epochs * self._steps_per_epoch
        # scaled rates start from the rate of one rank; without scaling there is nothing to start from but
        # (nearly) nothing
        self._warmup_start = 1.0 / self._scale if self._scale > 1 else 1.0 / (1.0 + self._warmup_steps)
        self._shadow = _shadow(optimizer)
        self._interval = interval or ("step" if scheduler in _BY_STEP else "epoch")
        self._last = (
            iterations
            if iterations is not None
            else None
            if epochs is None
            else epochs * self._steps_per_epoch
        )
        self._scheduler = self._build(scheduler, dict(arguments or {})) if scheduler else None
        self._metric = metric
        if self._is_plateau and columns is not None:
            self._column(columns)
        self._moves = 0
        self._base = _rates(self._shadow)

    def before_step(self, step: int) -> None:
        """Set the learning rates for step `step`."""
        if self._scheduler is not None and not self._is_plateau:
            self._move_to(step if self._interval == "step" else step // self._steps_per_epoch)
        factor = self._scale * warmup(step, self._warmup_steps, self._warmup_start)
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group.update(base)
            group["lr"] = base["lr"] * factor

    def after_epoch(self, row: Mapping[str, Any]) -> None:
        """Let ReduceLROnPlateau see its column; a NaN there (no validation in this epoch) is passed over."""
        if not self._is_plateau:
            return
        value = float(row[self._column(row)])
        if not math.isnan(value):
            self._scheduler.step(value)  # type: ignore[union-attr]
            self._base = _rates(self._shadow)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        inner = self._scheduler.state_dict() if self._scheduler else {}
        moving = {key: inner[key] for key in _MOVING if key in inner}
        return {"moves": self._moves, "rates": [dict(rates) for rates in self._base], "scheduler": moving}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; what the config sets (a longer run, another patience) is the
        config's.
        """
        if self._scheduler is not None:
            moving = {key: value for key, value in state["scheduler"].items() if key in _MOVING}
            self._scheduler.load_state_dict(moving)
        self._moves = state["moves"]
        self._base = [dict(rates) for rates in state["rates"]]
        for group, rates in zip(self._shadow.param_groups, self._base, strict=True):
            group.update(rates)

    # ------------------------------------------------------------------------------------------

    @property
    def _is_plateau(self) -> bool:
        return isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau)

    def _move_to(self, moves: int) -> None:
        """Bring the shadow from `_moves` to `moves` scheduler steps; they only go forwards."""
        total = getattr(self._scheduler, "total_steps", None)
        moves = moves if total is None else min(moves, total - 1)
        while self._moves < moves:
            self._shadow.step()  # the order that torch asks for; the shadow has nothing to update
            self._scheduler.step()  # type: ignore[union-attr]
            self._moves += 1
        self._base = _rates(self._shadow)

    def _column(self, columns: Collection[str]) -> str:
        name = self._metric or "loss"
        for column in (name, f"valid_{name}"):
            if column in columns:
                return column
        known = ", ".join(c.removeprefix("valid_") for c in columns if c.startswith(("valid_", "train_")))
        raise ConfigError(f"schedule.metric: the summary will have no column {name!r}; it will have {known}")

    def _build(self, name: str, arguments: dict[str, Any]) -> Any:
        known = lookup.public_classes(lr_scheduler, lr_scheduler.LRScheduler)
        found = lookup.find(name, known, "schedule.name")
        parameters = inspect.signature(found).parameters
        if any(key in parameters for key in _OBJECTS):
            raise ConfigError(
                f"schedule.name: {name} is made of functions or other schedulers, which a config cannot name"
            )
        total = (
            self._last
            if self._interval == "step"
            else None
            if self._last is None
            else -(-self._last // self._steps_per_epoch)
        )
        if name == "OneCycleLR" and not {"total_steps", "epochs"} & set(arguments):
            arguments["total_steps"] = self._total(total, "schedule.total_steps")
        if name == "CosineAnnealingLR" and "T_max" not in arguments:
            arguments["T_max"] = self._total(total, "schedule.T_max")
        if name == "OneCycleLR" and "max_lr" not in arguments:
            arguments["max_lr"] = [group["lr"] for group in self._shadow.param_groups]
        return lookup.make(found, arguments, "schedule", self._shadow)

    @staticmethod
    def _total(total: int | None, key: str) -> int:
        if total is None:
            raise ConfigError(
                f"{key}: missing, and the run has neither train.n_epochs nor train.iterations to take it from"
            )
        return max(1, total)


def build_optimizer(
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]], name: str, arguments: Mapping[str, Any]
) -> Optimizer:
    """The torch.optim optimizer `name` (or ``module:Class``) over parameters or groups of them. Raises
    ConfigError.
    """
    lean.without_compiler()
    known = lookup.public_classes(torch.optim, Optimizer, without=("LBFGS",))
    hints = {
        "LBFGS": "needs to evaluate the loss several times per step, which the training loop does not do"
    }
    found = lookup.find(name, known, "optimizer.name", hints)
    groups: list[Any] = list(parameters)
    if not groups:
        raise ConfigError("optimizer: no parameter is to be trained")
    return lookup.make(found, arguments, "optimizer", groups)  # type: ignore[no-any-return]


def _shadow(optimizer: Optimizer) -> Optimizer:
    """An optimizer of the same class and settings over parameters that do not matter."""
    groups = [
        {
            **{key: value for key, value in group.items() if key != "params"},
            "params": [nn.Parameter(torch.zeros(1, 1))],
        }
        for group in optimizer.param_groups
    ]
    return type(optimizer)(
        groups,
        **{k: v for k, v in optimizer.defaults.items() if k in inspect.signature(type(optimizer)).parameters},
    )


def _rates(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What schedulers change, group by group."""
    return [
        {
            key: group[key] if key != "betas" else tuple(group[key])
            for key in ("lr", "momentum", "betas")
            if key in group
        }
        for group in optimizer.param_groups
    ]
