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
from hpcreco.experiments.protodune.consistency import check
from hpcreco.experiments.protodune.keys import (
    CELLNETS,
    FOR_TRAINING,
    IGNORED,
    PREDICTS,
    TRAINERS,
    WHOLE_TRUTH,
    Data,
    Dialect,
    Storing,
)
from hpcreco.experiments.protodune.plugins import dialect as plugins
from hpcreco.experiments.protodune.plugins.data import IMAGES, VOXELS, table_of
from hpcreco.experiments.protodune.settings import Named


def normalise(raw: Mapping[str, Any], lenient: bool = False) -> Run:
    """The `Run` that a raw config describes.

    Raises ConfigError for every key that is unknown (with the nearest known one) or wrong; with `lenient`,
    unknown keys are left out with a warning.
    """
    raw, events = plugins.without_made(raw)
    written = config.build(Dialect, raw, lenient=lenient)
    train = written.train
    made = settings.Settings(
        sources=_sources(written.data) if events is None else plugins.sources(events),
        made=events,
        reading=settings.Reading(
            threshold=written.data.threshold,
            transforms=written.data.transforms,
            full_truth=written.data.full_y or (written.loss or {}).get("name") in WHOLE_TRUTH,
            normalise=written.data.normalise,
            normalise_labels=written.data.normalise_labels,
        ),
        model=_model(written.model, lenient, VOXELS if events is None else table_of(events)),
        predicts=written.predicts or PREDICTS.get(written.model["name"], "probability"),
        loss=_as_named(written.loss),
        optimizer=_as_named(written.optimizer),
        rates=_rates(written),
        metrics=written.metrics,
        sparse_backend=written.sparse.backend,
        greets=plugins.says_hello(raw),
    )
    check(written, made)
    return config.build(
        Run,
        {
            "experiment": "protodune",
            "output_dir": Path(written.output_dir),
            "settings": made,
            "trains": made.sources.train is not None,
            "notes": _without_effect(raw, trains=made.sources.train is not None),
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


def _as_named(section: Mapping[str, Any] | None) -> Named | None:
    if section is None:
        return None
    return Named(name=section["name"], arguments={k: v for k, v in section.items() if k != "name"})


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


def _model(section: Mapping[str, Any], lenient: bool, table: str) -> Named:
    """The model section, its arguments checked and completed when it is one of ours.

    `table`: what it is for, voxels or images.
    """
    named = _as_named(section)
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


def _rates(written: Dialect) -> settings.Rates:
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
            "scheduler": _as_named(section),
            "interval": interval,
            "metric": metric,
        },
        "schedule",
    )


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


# ---------------------------------------------------------------------------------------------- which files


def _sources(data: Data) -> settings.Sources:
    n = len(data.data_path)
    if n == 0:
        raise ConfigError("data.data_path: expected a folder of xy files, or a list of them")
    scale = data.transforms.scale
    if isinstance(scale, tuple) and len(scale) != n:
        raise ConfigError(
            f"data.transforms.scale: {len(scale)} numbers for {n} data_path entries; give one each, or one "
            "for all"
        )
    return settings.Sources(
        paths=tuple(Path(path) for path in data.data_path),
        train=_ranges(data.train_i, n, "data.train_i"),
        validation=_ranges(data.inference_i, n, "data.inference_i"),
        tpcs=_tpcs(data.tpcs, n),
    )


def _is_integers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    )


def _per_path(value: Any, n: int, where: str, what: str) -> list[Any]:
    """`value`, written once for one path or as a list for several, as a list of `n`."""
    if n == 1 and _is_integers(value):
        return [value]
    if not isinstance(value, list) or _is_integers(value):
        raise ConfigError(
            f"{where}: with {n} data_path entries expected a list of {n}, each {what}, found {value!r}"
        )
    if len(value) != n:
        raise ConfigError(
            f"{where}: {len(value)} entries for {n} data_path entries; they are matched by position, null "
            "skips one"
        )
    return value


def _ranges(value: Any, n: int, where: str) -> tuple[settings.Range | None, ...] | None:
    if value is None:
        return None
    ranges: list[settings.Range | None] = []
    for entry in _per_path(value, n, where, "[first, last] or null"):
        if entry is None:
            ranges.append(None)
        elif not _is_integers(entry) or len(entry) != 2 or entry[0] > entry[1]:
            raise ConfigError(
                f"{where}: expected [first, last] file index, both included, or null, found {entry!r}"
            )
        else:
            ranges.append((entry[0], entry[1]))
    return tuple(ranges) if any(r is not None for r in ranges) else None


def _tpcs(value: Any, n: int) -> tuple[tuple[int, ...] | None, ...]:
    if value is None:
        return (None,) * n
    out: list[tuple[int, ...] | None] = []
    for entry in _per_path(value, n, "data.tpcs", "a list of TPC numbers or null"):
        if entry is not None and not _is_integers(entry):
            raise ConfigError(f"data.tpcs: expected a list of TPC numbers or null, found {entry!r}")
        out.append(None if entry is None else tuple(entry))
    return tuple(out)
