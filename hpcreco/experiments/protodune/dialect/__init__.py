"""The config dialect of ProtoDUNE users -> `hpcreco.config.Run`.

The keys are those of the original program, so its users' files load unchanged; hpcreco's own keys have
defaults that change nothing. Torch-free: names of losses, optimizers and metrics are looked up when they are
used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcreco import config
from hpcreco.config import ConfigError, Run, Steps, Store
from hpcreco.experiments.protodune import settings
from hpcreco.experiments.protodune.dialect import files, named
from hpcreco.experiments.protodune.dialect.consistency import check
from hpcreco.experiments.protodune.dialect.keys import (
    FOR_TRAINING,
    IGNORED,
    PREDICTS,
    WHOLE_TRUTH,
    Data,
    Dialect,
    Storing,
)
from hpcreco.experiments.protodune.plugins import dialect as plugins
from hpcreco.experiments.protodune.plugins.data import VOXELS, table_of
from hpcreco.experiments.protodune.settings import Named


def normalise(raw: Mapping[str, Any], lenient: bool = False) -> Run:
    """The `Run` that a raw config describes.

    Raises ConfigError for every key that is unknown (with the nearest known one) or wrong; with `lenient`,
    unknown keys are left out with a warning.
    """
    raw, events = plugins.without_made(raw)
    written = config.build(Dialect, raw, lenient=lenient)
    made = _settings(written, events, plugins.says_hello(raw), lenient)
    check(written, made)
    return _run(written, made, _without_effect(raw, trains=made.sources.train is not None))


def _settings(written: Dialect, events: Named | None, greets: bool, lenient: bool) -> settings.Settings:
    """What is the experiment's own. events: a data set that makes them."""
    data, loss = written.data, written.loss or {}
    return settings.Settings(
        sources=files.sources(data) if events is None else plugins.sources(events),
        made=events,
        reading=settings.Reading(
            threshold=data.threshold,
            transforms=data.transforms,
            full_truth=data.full_y or loss.get("name") in WHOLE_TRUTH,
            normalise=data.normalise,
            normalise_labels=data.normalise_labels,
        ),
        model=named.model(written.model, lenient, VOXELS if events is None else table_of(events)),
        predicts=written.predicts or PREDICTS.get(written.model["name"], "probability"),
        loss=named.of(written.loss),
        optimizer=named.of(written.optimizer),
        rates=named.rates(written),
        metrics=written.metrics,
        sparse_backend=written.sparse.backend,
        greets=greets,
    )


def _run(written: Dialect, made: settings.Settings, notes: tuple[str, ...]) -> Run:
    """What the core knows of it."""
    train = written.train
    return config.build(
        Run,
        {
            "experiment": "protodune",
            "output_dir": Path(written.output_dir),
            "settings": made,
            "trains": made.sources.train is not None,
            "notes": notes,
            "seed": written.seed,
            "epochs": train.n_epochs,
            "iterations": train.iterations,
            "steps": _steps(written.data),
            "loading": {
                "workers": written.data.workers,
                "prefetch": written.data.prefetch,
                "stage": written.data.stage,
            },
            "store": _store(written.store_inference),
            "device": written.device,
            "threads": written.threads,
            "backend": written.backend,
            "parallel": written.parallel,
            "rank_files": written.rank_files,
            "tensorboard": written.tensorboard,
            **{key: getattr(train, key) for key in _TRAIN_KEYS},
        },
    )


#: keys of `train:` that `Run` has under the same name
_TRAIN_KEYS = (
    "start_epoch", "transfer", "init_from", "grad_clip", "amp", "precision", "early_stop", "keep_checkpoints",
    "save", "validate_every", "report",
)  # fmt: skip


def _steps(data: Data) -> Steps:
    if data.batch_size != 1:
        raise ConfigError(
            f"data.batch_size: must be 1 (one file per rank and step), found {data.batch_size}; for steps "
            "of n events, drawn from all "
            "files, give data.event_batch: n"
        )
    if data.event_batch is not None and data.cost_budget is not None:
        raise ConfigError(
            "data: give event_batch (events per step) or cost_budget (voxels per step), not both"
        )
    if data.event_batch is not None:
        return Steps(mode="events", size=data.event_batch, micro_cost=data.micro_cost)
    if data.cost_budget is not None:
        return Steps(
            mode="cost", size=data.cost_budget, rank_size=data.rank_budget, micro_cost=data.micro_cost
        )
    return Steps(mode="files", micro_cost=data.micro_cost)


def _store(section: Storing | None) -> Store | None:
    if section is None:
        return None
    return Store(
        every_epochs=section.everyNepoch or 1,
        every_samples=section.everyNsample or 1,
        outdir=section.outdir or "inference",
    )


def _without_effect(raw: Mapping[str, Any], trains: bool) -> tuple[str, ...]:
    """One line that lists the keys of the config that change nothing, and why; nothing without such keys."""

    def written(key: str) -> bool:
        head, _, rest = key.partition(".")
        section = raw.get(head)
        return section is not None and (not rest or (isinstance(section, Mapping) and rest in section))

    found = [f"{key} ({why})" for key, why in IGNORED.items() if written(key)]
    if not trains and (unused := [key for key in FOR_TRAINING if written(key)]):
        found.append(f"{', '.join(unused)} (nothing is trained: the config has no data.train_i)")
    return (f"keys without effect: {'; '.join(found)}",) if found else ()
