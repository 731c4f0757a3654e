"""The config dialect of ProtoDUNE users -> `hpcreco.config.Run`.

The keys are those of the original program, so its users' files load unchanged; hpcreco's own keys have defaults that change
nothing. Torch-free: names of losses, optimizers and metrics are looked up when they are used.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from hpcreco import config
from hpcreco.config import Cadence, ConfigError, EarlyStop, Parallel, Run, Steps, Store, Strict
from hpcreco.experiments.protodune import settings
from hpcreco.experiments.protodune.settings import CellNet, ChargeCellNet, Named, Normalise, Transforms

LOG = logging.getLogger("hpcreco")

#: legacy keys that are accepted and change nothing, and why
IGNORED = {
    "data.full_y": "a loss that needs all true voxels reads them itself",
    "data.use_dist_sampler_train": "files are always shared out over the ranks",
    "data.use_dist_sampler_valid": "every validation file is read exactly once, whatever the number of ranks",
}

#: models that take the arguments of a config section
CELLNETS: dict[str, type[CellNet]] = {
    "cellnet_binary": CellNet,
    "cellnet_charge": ChargeCellNet,
}
TRAINERS = ("basic", "schedule_plateau")
DATASETS = ("sparse",)


class Storing(Strict):
    """`store_inference:` as users write it."""

    everyNepoch: int | None = Field(default=None, ge=1)  # noqa: N815
    everyNsample: int | None = Field(default=None, ge=1)  # noqa: N815
    outdir: str | None = None


class Data(Strict):
    """`data:`; the lists run parallel to `data_path`."""

    name: str = "sparse"
    data_path: list[str]
    train_i: Any = None
    inference_i: Any = None
    tpcs: Any = None
    batch_size: int = 1
    threshold: float | None = None
    full_y: bool = False
    transforms: Transforms = Transforms()
    use_dist_sampler_train: bool = True
    use_dist_sampler_valid: bool = True
    # hpcreco's own
    normalise: Normalise | None = None
    event_batch: int | None = Field(default=None, ge=1)
    cost_budget: float | None = Field(default=None, gt=0)
    micro_cost: float = Field(default=math.inf, gt=0)
    workers: int = Field(default=1, ge=1)
    prefetch: int = Field(default=2, ge=1)

    @field_validator("data_path", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("transforms", mode="before")
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("normalise", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Train(Strict):
    """`train:`"""

    n_epochs: int | None = Field(default=None, ge=0)
    start_epoch: int | None = Field(default=None, ge=0)
    transfer: bool = False
    # hpcreco's own
    iterations: int | None = Field(default=None, ge=0)
    init_from: str | None = None
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    warmup_epochs: float = Field(default=0.0, ge=0)
    grad_clip: float | None = Field(default=None, gt=0)
    amp: bool = False
    precision: Literal["float32", "float64"] = "float32"
    early_stop: EarlyStop | None = None
    keep_checkpoints: int | None = Field(default=None, ge=1)
    save: Cadence = Cadence(every=1)
    validate_every: Cadence = Cadence(every=1, unit="epochs")
    report: Cadence = Cadence(every=30, unit="seconds")

    @field_validator("early_stop", mode="before")
    @classmethod
    def _patience(cls, value: Any) -> Any:
        return {"patience": value} if isinstance(value, int) else value


class Sparse(Strict):
    """`sparse:` which implementation computes the sparse convolutions."""

    backend: Literal["native", "minkowski"] = "native"


class Dialect(Strict):
    """A whole config file."""

    experiment: str = "protodune"
    trainer: dict[str, Any] = {"name": "basic"}
    output_dir: str
    store_inference: Storing | None = None
    data: Data
    model: dict[str, Any]
    loss: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    train: Train = Train()
    metrics: dict[str, str] = {}
    # hpcreco's own
    seed: int = 0
    schedule: dict[str, Any] | None = None
    sparse: Sparse = Sparse()
    parallel: Parallel = Parallel()
    backend: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    rank_files: bool = False
    tensorboard: bool = False

    @field_validator("trainer", "model", "loss", "optimizer", "schedule", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and not isinstance(value.get("name"), str):
            raise ValueError("expected the name of a class under the key `name`")
        return value

    @field_validator("store_inference", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @field_validator("metrics", mode="before")
    @classmethod
    def _no_metrics(cls, value: Any) -> Any:
        return {} if value is None else value


def normalise(raw: Mapping[str, Any], lenient: bool = False) -> Run:
    """The `Run` that a raw config describes.

    Raises ConfigError for every key that is unknown (with the nearest known one) or wrong; with `lenient`, unknown keys are left out with
    a warning.
    """
    written = _build(Dialect, raw, lenient)
    for key in ("full_y", "use_dist_sampler_train", "use_dist_sampler_valid"):
        if key in written.data.model_fields_set:
            LOG.debug("data.%s has no effect: %s", key, IGNORED[f"data.{key}"])
    train = written.train
    made = settings.Settings(
        sources=_sources(written.data),
        reading=settings.Reading(
            threshold=written.data.threshold,
            transforms=written.data.transforms,
            normalise=written.data.normalise,
        ),
        model=_model(written.model, lenient),
        loss=_as_named(written.loss),
        optimizer=_as_named(written.optimizer),
        rates=_rates(written),
        metrics=written.metrics,
        sparse_backend=written.sparse.backend,
    )
    _check(written, made)
    return config.build(
        Run,
        {
            "experiment": "protodune",
            "output_dir": Path(written.output_dir),
            "settings": made,
            "seed": written.seed,
            "epochs": train.n_epochs,
            "iterations": train.iterations,
            "steps": _steps(written.data),
            "loading": {"workers": written.data.workers, "prefetch": written.data.prefetch},
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


def _build(model: type[Strict], raw: Mapping[str, Any], lenient: bool, where: str = "") -> Any:
    """`config.build`; with `lenient`, unknown keys are dropped first, each with a warning."""
    while True:
        try:
            return config.build(model, raw, where)
        except ConfigError as error:
            cause = error.__cause__
            if not lenient or not isinstance(cause, ValidationError):
                raise
            unknown = [item["loc"] for item in cause.errors() if item["type"] == "extra_forbidden"]
            if not unknown:
                raise
            for location in unknown:
                LOG.warning(
                    "%s: unknown key, left out", ".".join(map(str, ((where,) if where else ()) + location))
                )
                raw = _without(raw, location)


def _without(raw: Mapping[str, Any], location: tuple[Any, ...]) -> dict[str, Any]:
    head, *rest = location
    if not rest:
        return {key: value for key, value in raw.items() if key != head}
    return {key: _without(value, tuple(rest)) if key == head else value for key, value in raw.items()}


def _as_named(section: Mapping[str, Any] | None) -> Named | None:
    if section is None:
        return None
    return Named(name=section["name"], arguments={k: v for k, v in section.items() if k != "name"})


def _model(section: Mapping[str, Any], lenient: bool) -> Named:
    """The model section, its arguments checked and completed when it is one of ours."""
    named = _as_named(section)
    assert named is not None
    if named.name in CELLNETS:
        arguments = _build(CELLNETS[named.name], named.arguments, lenient, "model")
        return Named(name=named.name, arguments=arguments.model_dump())
    if ":" not in named.name:
        close = config.nearest(named.name, CELLNETS)
        hint = f"; did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"model.name: there is no model {named.name!r}; known are {', '.join(CELLNETS)}, and module:Class of your own{hint}"
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
    if name == "basic" and trainer:
        raise ConfigError(f"trainer: basic takes no arguments, found {', '.join(trainer)}")
    if name == "schedule_plateau":
        if section:
            raise ConfigError(
                "schedule: the trainer schedule_plateau is a schedule already; give one of the two"
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
            f"data.batch_size: must be 1 (one file per rank and step), found {data.batch_size}; for steps of n events, drawn from all "
            "files, give data.event_batch: n"
        )
    if data.event_batch is not None and data.cost_budget is not None:
        raise ConfigError(
            "data: give event_batch (events per step) or cost_budget (voxels per step), not both"
        )
    if data.event_batch is not None:
        return Steps(mode="events", size=data.event_batch, micro_cost=data.micro_cost)
    if data.cost_budget is not None:
        return Steps(mode="cost", size=data.cost_budget, micro_cost=data.micro_cost)
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
    if data.name not in DATASETS:
        raise ConfigError(f"data.name: there is no dataset {data.name!r}; known: {', '.join(DATASETS)}")
    n = len(data.data_path)
    if n == 0:
        raise ConfigError("data.data_path: expected a folder of xy files, or a list of them")
    scale = data.transforms.scale
    if isinstance(scale, tuple) and len(scale) != n:
        raise ConfigError(
            f"data.transforms.scale: {len(scale)} numbers for {n} data_path entries; give one each, or one for all"
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
            f"{where}: {len(value)} entries for {n} data_path entries; they are matched by position, null skips one"
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


# ---------------------------------------------------------------------------------------------- what fits together


def _check(written: Dialect, made: settings.Settings) -> None:
    """Refuse what would fail, or quietly do something else, hours later."""
    sources = made.sources
    if sources.train is None and sources.validation is None:
        raise ConfigError(
            "data: names no files; give train_i, inference_i or both, e.g. inference_i: [0, 10]"
        )
    if sources.train is not None:
        missing = [key for key in ("loss", "optimizer") if getattr(made, key) is None]
        if written.train.n_epochs is None and written.train.iterations is None:
            missing.append("train.n_epochs")
        if missing:
            raise ConfigError(
                f"{', '.join(missing)}: missing; data.train_i asks for training, which needs them"
            )
    own_step = written.data.event_batch is not None or written.data.cost_budget is not None
    if made.rates.scaling != "none" and own_step:
        raise ConfigError(
            "train.lr_scaling: with data.event_batch or data.cost_budget a step is the same for any number of ranks, so there is nothing "
            "to scale for; leave it out"
        )
    if made.model.name in CELLNETS:
        expected = made.model.arguments["nInputFeatures"] - made.reading.extra_features
        if expected < 1:
            raise ConfigError(
                f"model.nInputFeatures: {made.model.arguments['nInputFeatures']} leaves no charge beside the {made.reading.extra_features} "
                "columns of data.transforms.z_segments; expected the number of planes plus the number of segments"
            )
