"""The config dialect of the original package's users -> `hpcreco.config.Run`.

The keys are the original's, so its users' files load unchanged; hpcreco's own keys have defaults that change nothing.
Torch-free: sources are names until a model is built.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hpcreco import config
from hpcreco.config import ConfigError, Run, Steps, nearest
from hpcreco.experiments.icecube import aliases, settings
from hpcreco.experiments.icecube.keys import (
    INERT,
    Dialect,
    Handler,
    LossModule,
    Model,
    Optimizing,
    TrafoSettings,
    Training,
)
from hpcreco.experiments.icecube.reading import Reading
from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings

LOG = logging.getLogger("hpcreco")

#: the original's loss modules -> whether they are a prior
_LOSS_MODULES = {"DefaultLossModule": "", "SnowstormPriorLossModule": settings.PRIOR}
_CASCADE = ("x", "y", "z", "zenith", "azimuth", "energy", "time")


def normalise(raw: Mapping[str, Any], lenient: bool = False) -> Run:
    """The `Run` that a raw config describes.

    Raises ConfigError for every key that is unknown (with the nearest known one) or wrong; with `lenient`, unknown
    keys are left out with a warning.
    """
    written: Dialect = config.build(Dialect, raw, lenient=lenient)
    output_dir = _output_dir(written)
    frozen = _frozen(written.model_settings)
    model = _model(written.model_settings, frozen)
    training = written.training_settings
    reconstruction = config.build(
        ReconstructionSettings, written.reconstruction_settings, "reconstruction_settings", lenient
    )
    made = settings.Settings(
        unique_name=written.unique_name,
        sources=_sources(written),
        reading=_reading(written.data_handler_settings, written.model_settings),
        model=model,
        frozen=frozen,
        losses=tuple(_loss(module, n) for n, module in enumerate(written.loss_module_settings)),
        optimizer=_optimizer(training),
        regularisation=settings.Regularisation(l1=training.l1_regularization, l2=training.l2_regularization),
        normalise_by_charge=training.additional_loss_module_kwargs.normalize_by_total_charge,
        remove_nan_gradients=training.remove_nan_gradients,
        batch_size=written.data_iterator_settings.training.batch_size
        if written.data_iterator_settings.training
        else 32,
        weighted=_weighted(written.data_handler_settings),
        cuts=_cuts(written.data_handler_settings),
        trafo=_trafo(written, output_dir),
        reconstruction=reconstruction.model_dump(mode="json"),
        particle=written.model_manager_settings.config.I3ParticleMapping,
        inert=tuple(inert(raw)),
    )
    for key in made.inert:
        LOG.debug("%s has no effect here", key)
    return _run(written, made, output_dir)


def _run(written: Dialect, made: settings.Settings, output_dir: Path) -> Run:
    training = written.training_settings
    return config.build(  # type: ignore[no-any-return]
        Run,
        {
            "experiment": "icecube",
            "output_dir": output_dir,
            "settings": made,
            "trains": made.sources.train is not None,
            "seed": written.seed,
            "iterations": training.num_training_iterations,
            "steps": _steps(written),
            "loading": {
                "workers": training.workers,
                "prefetch": training.prefetch,
                "stage": training.stage,
            },
            "save": {"every": training.save_frequency, "unit": "steps"},
            "validate_every": {"every": training.validation_frequency, "unit": "steps"},
            "validation_events": _validation_events(written),
            "report": training.report,
            "resume": "auto" if written.model_manager_settings.restore_model else None,
            "init_from": training.init_from,
            "keep_checkpoints": training.keep_checkpoints,
            "early_stop": training.early_stop,
            "grad_clip": training.clip_gradients_value,
            "precision": training.precision,
            "backend": written.backend,
            "device": written.device,
            "threads": written.threads,
            "parallel": written.parallel,
            "rank_files": written.rank_files,
            "tensorboard": written.tensorboard,
        },
    )


def inert(raw: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The keys of a config that are accepted and change nothing."""
    for key, value in raw.items():
        name = f"{where}{key}"
        if any(fnmatchcase(name, pattern) for pattern in INERT):
            yield name
        elif isinstance(value, Mapping):
            yield from inert(value, f"{name}.")


def _output_dir(written: Dialect) -> Path:
    found = written.output_dir or written.model_manager_settings.config.manager_dir
    if found is None:
        raise ConfigError(
            "output_dir: missing; give it, or model_manager_settings.config.manager_dir as the original does"
        )
    return Path(found)


# ---------------------------------------------------------------------------------------------- data


def _sources(written: Dialect) -> settings.Sources:
    iterators = written.data_iterator_settings
    paths = {
        part: tuple(iterator.input_data) or None if iterator else None
        for part, iterator in (
            ("train", iterators.training),
            ("validation", iterators.validation),
            ("trafo", iterators.trafo),
            ("test", iterators.test),
        )
    }
    return settings.Sources(**paths, detector=written.detector)


def _steps(written: Dialect) -> Steps:
    iterator, micro = written.data_iterator_settings.training, written.training_settings.micro_cost
    if iterator is None:
        return Steps(mode="events", size=1, micro_cost=micro)
    if iterator.cost_budget is not None:
        size, part = iterator.cost_budget, iterator.rank_budget
        return Steps(mode="cost", size=size, rank_size=part, micro_cost=micro)
    return Steps(mode="events", size=iterator.batch_size, micro_cost=micro)


def _validation_events(written: Dialect) -> int | None:
    iterator = written.data_iterator_settings.validation
    if iterator is None or iterator.num_batches is None:
        return None
    return iterator.num_batches * iterator.batch_size


def _reading(handler: Handler, model: Model) -> Reading:
    data, labels = handler.data_settings, handler.label_settings
    if data.time_window_mode not in ("readout", "pulses"):
        raise ConfigError(
            "data_handler_settings.data_settings.time_window_mode: expected readout or pulses, "
            f"found {data.time_window_mode!r}"
        )
    return Reading(
        window=data.time_window_mode,
        buffer=data.time_window_buffer,
        shift_to_maximum=_cascade_prefix(model) if labels.shift_cascade_vertex else None,
        discard_excluded=data.discard_pulses_from_excluded_doms,
        quantiles=data.add_charge_quantiles,
    )


def _cascade_prefix(model: Model) -> str:
    """What stands before a cascade's own parameter names in those of the hypothesis: ``cascade_``."""
    if aliases.source(model.model_class) != "IndependentMultiSource":
        return ""
    sources = sorted(model.config.get("sources") or {})
    lit = [name for name in sources if not _is_noise(model, str(model.config["sources"][name]))]
    if len(lit) != 1:
        raise ConfigError(
            "data_handler_settings.label_settings.shift_cascade_vertex: needs one source beside the noise, "
            f"found {', '.join(lit) or 'none'}"
        )
    return f"{lit[0]}_"


def _is_noise(model: Model, base: str) -> bool:
    return base in model.multi_source_bases and (
        aliases.source(model.multi_source_bases[base].model_class) == "DefaultNoiseModel"
    )


def _weighted(handler: Handler) -> bool:
    """Does an event count by its weight? The original's dummy weights are all 1."""
    return handler.weight_module is not None and "dummy" not in handler.weight_module.lower()


def _cuts(handler: Handler) -> tuple[settings.Cut, ...]:
    known = ("<", "<=", "==", ">=", ">")
    cuts = []
    for table, column, op, threshold in handler.filter_settings.constraints:
        if op not in known:
            raise ConfigError(
                f"data_handler_settings.filter_settings.constraints: {table}.{column} {op!r} {threshold}; known are "
                + ", ".join(known)
            )
        cuts.append(settings.Cut(parameter=column, op=op, threshold=threshold))
    return tuple(cuts)


def _trafo(written: Dialect, output_dir: Path) -> settings.Trafo:
    section: TrafoSettings = written.data_trafo_settings
    log = written.data_handler_settings.label_settings.trafo_log
    iterator = written.data_iterator_settings.trafo or written.data_iterator_settings.training
    batch = iterator.batch_size if iterator else 32
    return settings.Trafo(
        folder=Path(section.model_dir) if section.model_dir else output_dir / "trafo",
        log=tuple(log) if isinstance(log, list) else (log,),
        epsilon=section.norm_constant,
        events=None if section.num_batches is None else section.num_batches * batch,
    )


# ---------------------------------------------------------------------------------------------- model


def _model(
    section: Model,
    frozen: tuple[tuple[str, ...], ...],
    where: str = "model_settings",
    path: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The nested settings as `hypothesis.build` takes them; what the config leaves out is left out."""
    aliases.source(section.model_class, f"{where}.model_class")
    made: dict[str, Any] = {"model_class": section.model_class, "config": dict(section.config)}
    for key in ("load_dir", "decoder_settings", "decoder_charge_settings", "freeze", "unfreeze"):
        if getattr(section, key):
            made[key] = getattr(section, key)
    if section.data_trafo_settings is not None and path:
        made["data_trafo_settings"] = section.data_trafo_settings.model_dump(exclude_none=True)
    if section.multi_source_bases:
        made["multi_source_bases"] = {
            base: _model(inner, frozen, f"{where}.multi_source_bases.{base}", (*path, base))
            for base, inner in section.multi_source_bases.items()
        }
    else:
        made["trainable"] = path not in frozen
    _check_sources(made, where)
    return made


def _check_sources(made: Mapping[str, Any], where: str) -> None:
    """Every source of an independent multi-source needs a base that exists."""
    sources, bases = made["config"].get("sources"), made.get("multi_source_bases", {})
    if not isinstance(sources, Mapping):
        return
    for source, base in sources.items():
        if base not in bases:
            close = nearest(str(base), bases)
            raise ConfigError(
                f"{where}.config.sources.{source}: there is no base {base!r} in multi_source_bases"
                + (f"; did you mean {close!r}?" if close else f"; it has {', '.join(bases) or 'none'}")
            )


def _frozen(section: Model) -> tuple[tuple[str, ...], ...]:
    """Paths of the bases that are not trained.

    What is loaded stays as it is while something new is trained; where everything is loaded, everything trains on, as
    in the original. `trainable:` of a base decides otherwise.
    """
    leaves = list(_leaves(section, ()))
    something_new = any(not loaded for _, loaded, _ in leaves)
    return tuple(
        path
        for path, loaded, trainable in leaves
        if not (trainable if trainable is not None else not (loaded and something_new))
    )


def _leaves(
    section: Model, path: tuple[str, ...], loaded: bool = False, trainable: bool | None = None
) -> Iterator[tuple[tuple[str, ...], bool, bool | None]]:
    """(path, is it loaded, `trainable:` of it or of what holds it) of every source without bases of its own."""
    loaded = loaded or section.load_dir is not None
    trainable = section.trainable if section.trainable is not None else trainable
    if not section.multi_source_bases:
        yield path, loaded, trainable
    for name, base in section.multi_source_bases.items():
        yield from _leaves(base, (*path, name), loaded, trainable)


# ---------------------------------------------------------------------------------------------- loss and optimizer


def _loss(module: LossModule, number: int) -> settings.LossTerm:
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


def _optimizer(training: Training) -> settings.Optimizer:
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
