"""What of a ProtoDUNE config fits together: what would fail, or quietly do something else, hours later is refused."""

from __future__ import annotations

import logging

from hpcreco.config import ConfigError
from hpcreco.experiments.protodune import settings
from hpcreco.experiments.protodune.dialect.keys import (
    CELLNETS,
    OF_PROBABILITIES,
    PREDICTS,
    WHOLE_TRUTH,
    Dialect,
)

LOG = logging.getLogger("hpcreco")


def check(written: Dialect, made: settings.Settings) -> None:
    """Raise ConfigError, with the remedy, for what contradicts itself or is missing."""
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
    _check_kind(written, made)
    own_step = written.data.event_batch is not None or written.data.cost_budget is not None
    if made.rates.scaling != "none" and own_step:
        raise ConfigError(
            "train.lr_scaling: with data.event_batch or data.cost_budget a step is the same for any number "
            "of ranks, so there is nothing "
            "to scale for; leave it out"
        )
    if made.model.name in CELLNETS:
        expected = made.model.arguments["nInputFeatures"] - made.reading.extra_features
        if expected < 1:
            raise ConfigError(
                f"model.nInputFeatures: {made.model.arguments['nInputFeatures']} leaves no charge beside "
                f"the {made.reading.extra_features} "
                "columns of data.transforms.z_segments; expected the number of planes plus the number of "
                "segments"
            )


def _check_kind(written: Dialect, made: settings.Settings) -> None:
    """Model, labels and loss should speak of the same: probabilities or electrons."""
    name, reading = made.model.name, made.reading
    if name in CELLNETS and written.predicts not in (None, PREDICTS.get(name, "probability")):
        raise ConfigError(
            f"predicts: {name} predicts {PREDICTS.get(name, 'probability')}; leave `predicts` out"
        )
    loss = made.loss.name if made.loss else ""
    open_scales = [
        how for how in (reading.normalise, reading.normalise_labels) if how and how.scale == "auto"
    ]
    if open_scales and made.made is not None:
        raise ConfigError(
            "data.normalise: scale: auto is measured on xy files, and these events are made; give a number"
        )
    if made.predicts == "probability":
        if reading.normalise_labels is not None:
            raise ConfigError("data.normalise_labels: is for models that predict electrons; leave it out")
        return
    if reading.threshold is not None:
        raise ConfigError(
            f"data.threshold: {name} predicts electrons, so labels must stay electrons; leave it out"
        )
    if loss in OF_PROBABILITIES:
        raise ConfigError(
            f"loss.name: {loss} compares probabilities, but {name} predicts electrons; take MSELoss, L1Loss, "
            "SmoothL1Loss or DownsampleMSELoss"
        )
    squeezed = reading.normalise_labels
    if loss in WHOLE_TRUTH and squeezed is not None and squeezed.kind != "linear":
        raise ConfigError(
            f"data.normalise_labels: {loss} adds charges up, so they can only be divided: kind: linear"
        )
    if (
        made.model.arguments.get("freeze")
        and made.sources.train is not None
        and not (written.train.init_from or written.train.transfer)
    ):
        LOG.warning("model.freeze: without train.init_from the backbone stays as random as it starts")
