"""Sections that name something and give its arguments: the model, the loss, the optimizer, the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcreco import config
from hpcreco.config import ConfigError
from hpcreco.experiments.protodune import settings
from hpcreco.experiments.protodune.dialect.keys import CELLNETS, TRAINERS, Dialect
from hpcreco.experiments.protodune.plugins.data import IMAGES
from hpcreco.experiments.protodune.settings import Named


def of(section: Mapping[str, Any] | None) -> Named | None:
    """A section's `name`, and the rest of it as arguments."""
    if section is None:
        return None
    return Named(name=section["name"], arguments={k: v for k, v in section.items() if k != "name"})


def model(section: Mapping[str, Any], lenient: bool, table: str) -> Named:
    """The model section, its arguments checked and completed when it is one of ours.

    `table`: what it is for, voxels or images.
    """
    named = of(section)
    assert named is not None
    if table == IMAGES and named.name in CELLNETS:
        raise ConfigError(
            f"model.name: {named.name} takes voxels and the data set makes images; cnn takes these, and data.name: "
            "random_sparse makes voxels"
        )
    if table == IMAGES:
        return named  # looked up when it is built: torchvision's names are known to torchvision alone
    if named.name == "cnn":
        raise ConfigError(
            "model.name: cnn takes images and the data are voxels; data.name: random makes images"
        )
    if named.name in CELLNETS:
        arguments = config.build(CELLNETS[named.name], named.arguments, "model", lenient)
        return Named(name=named.name, arguments=arguments.model_dump())
    if ":" not in named.name:
        close = config.nearest(named.name, CELLNETS)
        hint = f"; did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"model.name: there is no model {named.name!r}; known are {', '.join(CELLNETS)}, and "
            f"module:Class of your own{hint}"
        )
    return named


def rates(written: Dialect) -> settings.Rates:
    """The learning rate's course: `trainer: schedule_plateau` of the original, or our `schedule:`."""
    trainer = dict(written.trainer)
    name = trainer.pop("name")
    if name not in TRAINERS:
        close = config.nearest(name, TRAINERS)
        raise ConfigError(
            f"trainer: there is no trainer {name!r}; known are {', '.join(TRAINERS)}"
            + (f"; did you mean {close!r}?" if close else "")
        )
    section = dict(written.schedule) if written.schedule else None
    if name != "schedule_plateau" and trainer:
        raise ConfigError(f"trainer: {name} takes no arguments, found {', '.join(trainer)}")
    if name == "schedule_plateau":
        if section:
            raise ConfigError(
                "schedule: the trainer schedule_plateau is a schedule already; give one of the two"
            )
        trainer.pop("verbose", None)  # of older versions of torch; see IGNORED
        if str(trainer.get("metric", "loss")).endswith("loss") and "mode" not in trainer:
            raise ConfigError(
                "trainer.metric: schedule_plateau takes its metric to be better the larger it is, which a loss is not; "
                "add `mode: min`, or name a metric"
            )
        section = {"name": "ReduceLROnPlateau", "mode": "max", **trainer}
    metric = section.pop("metric", None) if section else None
    interval = section.pop("interval", None) if section else None
    return config.build(
        settings.Rates,
        {
            "scaling": written.train.lr_scaling,
            "warmup_epochs": written.train.warmup_epochs,
            "scheduler": of(section),
            "interval": interval,
            "metric": metric,
        },
        "schedule",
    )
