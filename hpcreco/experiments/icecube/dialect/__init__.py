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
from hpcreco.config import ConfigError, Run
from hpcreco.experiments.icecube import settings
from hpcreco.experiments.icecube.dialect import data, model_settings, training_settings
from hpcreco.experiments.icecube.dialect.keys import INERT, Dialect
from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings

LOG = logging.getLogger("hpcreco")


def normalise(raw: Mapping[str, Any], lenient: bool = False) -> Run:
    """The `Run` that a raw config describes.

    Raises ConfigError for every key that is unknown (with the nearest known one) or wrong; with `lenient`, unknown
    keys are left out with a warning.
    """
    written: Dialect = config.build(Dialect, raw, lenient=lenient)
    output_dir = _output_dir(written)
    made = _settings(written, output_dir, tuple(inert(raw)), lenient)
    for key in made.inert:
        LOG.debug("%s has no effect here", key)
    return _run(written, made, output_dir)


def _settings(
    written: Dialect, output_dir: Path, without_effect: tuple[str, ...], lenient: bool
) -> settings.Settings:
    """What is the experiment's own."""
    training, handler = written.training_settings, written.data_handler_settings
    iterator = written.data_iterator_settings.training
    frozen = model_settings.frozen_paths(written.model_settings)
    model = model_settings.nested(written.model_settings, frozen)
    reconstruction = config.build(
        ReconstructionSettings, written.reconstruction_settings, "reconstruction_settings", lenient
    )
    losses = (
        training_settings.loss(term, number) for number, term in enumerate(written.loss_module_settings)
    )
    return settings.Settings(
        unique_name=written.unique_name,
        sources=data.sources(written),
        reading=data.reading(handler, written.model_settings),
        model=model,
        frozen=frozen,
        losses=tuple(losses),
        optimizer=training_settings.optimizer(training),
        regularisation=settings.Regularisation(l1=training.l1_regularization, l2=training.l2_regularization),
        normalise_by_charge=training.additional_loss_module_kwargs.normalize_by_total_charge,
        remove_nan_gradients=training.remove_nan_gradients,
        batch_size=iterator.batch_size if iterator else 32,
        weighted=data.weighted(handler),
        cuts=data.cuts(handler),
        trafo=data.trafo(written, output_dir),
        reconstruction=reconstruction.model_dump(mode="json"),
        particle=written.model_manager_settings.config.I3ParticleMapping,
        inert=without_effect,
    )


def _run(written: Dialect, made: settings.Settings, output_dir: Path) -> Run:
    """What the core knows of it."""
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
            "steps": data.steps(written),
            "loading": {
                "workers": training.workers,
                "prefetch": training.prefetch,
                "stage": training.stage,
            },
            "save": {"every": training.save_frequency, "unit": "steps"},
            "validate_every": {"every": training.validation_frequency, "unit": "steps"},
            "validation_events": data.validation_events(written),
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
