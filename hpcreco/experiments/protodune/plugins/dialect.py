"""Configs without files: `trainer: hello`, and data sets that make their events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcreco import config
from hpcreco.config import ConfigError
from hpcreco.experiments.protodune.plugins import data
from hpcreco.experiments.protodune.settings import Named, Sources

#: keys of `data:` that are about steps and reading, whatever the data set
_SHARED = (
    "name", "batch_size", "event_batch", "cost_budget", "rank_budget", "micro_cost", "workers", "prefetch", "stage",
    "use_dist_sampler_train", "use_dist_sampler_valid",
)  # fmt: skip

#: what `trainer: hello` trains when the config does not say
_HELLO: dict[str, Any] = {
    "output_dir": "runs/hello",
    "data": {"name": "random"},
    "model": {"name": "cnn", "conv_sizes": [4], "fc_sizes": [16]},
    "loss": {"name": "CrossEntropyLoss"},
    "optimizer": {"name": "Adam", "lr": 0.01},
    "train": {"n_epochs": 2},
}

#: events per step when the config does not say
_BATCH = 8


def says_hello(raw: Mapping[str, Any]) -> bool:
    """Is it a config for `trainer: hello`?"""
    trainer = raw.get("trainer")
    return trainer == "hello" or (isinstance(trainer, Mapping) and trainer.get("name") == "hello")


def without_made(raw: Mapping[str, Any]) -> tuple[dict[str, Any], Named | None]:
    """The config with `data:` left to the keys that every data set shares, and its made data set, if it has one.

    Raises ConfigError for a data set that does not exist, or not with these arguments.
    """
    filled = {**_HELLO, **raw} if says_hello(raw) else dict(raw)
    section = filled.get("data")
    name = section.get("name", "sparse") if isinstance(section, Mapping) else "sparse"
    if not isinstance(section, Mapping) or name == "sparse" or not isinstance(name, str):
        return filled, None
    if name not in data.DATA_SETS and ":" not in name:
        known = ("sparse", *data.DATA_SETS)
        close = config.nearest(name, known)
        raise ConfigError(
            f"data.name: there is no dataset {name!r}; known are {', '.join(known)}, and module:Class of your own"
            + (f"; did you mean {close!r}?" if close else "")
        )
    named = Named(name=name, arguments={k: v for k, v in section.items() if k not in _SHARED})
    source = data.build(named)
    if not any(source.size(part) for part in data.PARTS):
        raise ConfigError(f"data: {name} holds no events, neither for training nor for validation")
    shared = {k: v for k, v in section.items() if k in _SHARED and k != "batch_size"}
    if not {"event_batch", "cost_budget"} & shared.keys():
        shared["event_batch"] = section.get("batch_size", _BATCH)
    return {**filled, "data": {**shared, "data_path": []}}, named


def sources(named: Named) -> Sources:
    """No folders; parts that have events."""
    source = data.build(named)
    has = {part: () if source.size(part) else None for part in data.PARTS}
    return Sources(paths=(), train=has["train"], validation=has["validation"], tpcs=())
