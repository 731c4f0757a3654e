"""`loss_module_settings` and `training_settings`: the terms of the loss, the optimizer and its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcreco.config import ConfigError, nearest
from hpcreco.experiments.icecube import aliases, settings
from hpcreco.experiments.icecube.dialect.keys import LossModule, Optimizing, Training

#: the original's loss modules -> whether they are a prior
_LOSS_MODULES = {"DefaultLossModule": "", "SnowstormPriorLossModule": settings.PRIOR}


def loss(module: LossModule, number: int) -> settings.LossTerm:
    """One entry of `loss_module_settings`; `number` is its place in the list."""
    where = f"loss_module_settings.{number}"
    kind = aliases.module(module.loss_module, _LOSS_MODULES, f"{where}.loss_module")
    section = module.config
    name = kind or section.loss_function_name
    if name not in (*settings.LOSSES, settings.PRIOR):
        close = nearest(str(name), settings.LOSSES)
        raise ConfigError(
            f"{where}.config.loss_function_name: there is no loss {name!r}; known are {', '.join(settings.LOSSES)}"
            + (f"; did you mean {close!r}?" if close else "")
        )
    return settings.LossTerm(
        function=name,
        weight=module.loss_module_weight,
        **section.model_dump(exclude={"loss_function_name", "float_precision"}),
    )


def optimizer(training: Training) -> settings.Optimizer:
    """The optimizer, its arguments, and its learning rate or schedule."""
    section: Optimizing = training.optimizer_settings
    return settings.Optimizer(
        name=aliases.optimizer(training.optimizer_name),
        arguments=section.model_dump(exclude={"learning_rate"}, exclude_none=True),
        rate=_rate(section.learning_rate, "training_settings.optimizer_settings.learning_rate"),
    )


def _rate(value: Any, where: str) -> settings.Rate:
    """A number, or ``{full_class_string, settings}`` with schedules inside its settings."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, Mapping) or set(value) - {"full_class_string", "settings"}:
        raise ConfigError(
            f"{where}: expected a number or {{full_class_string: ..., settings: ...}}, found {value!r}"
        )
    arguments = dict(value.get("settings") or {})
    if "scheduler_settings" in arguments:
        arguments["scheduler_settings"] = [
            rate.model_dump() if isinstance(rate, settings.Schedule) else rate
            for rate in (
                _rate(part, f"{where}.settings.scheduler_settings.{n}")
                for n, part in enumerate(arguments["scheduler_settings"])
            )
        ]
    return settings.Schedule(name=aliases.schedule(str(value.get("full_class_string"))), settings=arguments)
