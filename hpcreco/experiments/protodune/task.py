"""Deghosting as a task: the probability of every candidate voxel to hold charge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from hpcreco.config import Run
from hpcreco.data.batch import Batch
from hpcreco.experiments.protodune import dataset, model
from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS, curve_from_histograms
from hpcreco.experiments.protodune.files import settings_of
from hpcreco.experiments.protodune.settings import Settings
from hpcreco.experiments.protodune.yinf import YINF
from hpcreco.nn import losses, metrics
from hpcreco.shards import Schema
from hpcreco.train import schedule
from hpcreco.train.task import Context, Optimization, Outcome, Pace, Stage, Tables, Task

COORDS, FEATURES, LABELS = "voxels/coords", "voxels/features", "voxels/labels"

#: columns that every run has beside the metrics its config names
COLUMNS = ("balanced_accuracy", "auc_pe", "break_even")

_USER = "user/"  # marks the sums of the config's own metrics


class Objective:
    """What a network is judged by. Rides on the model: a step knows no more than the model and the batch.

    The loss is looked up when it is first needed: inference on data without truth needs none.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def loss(self) -> losses.Loss:
        """The config's loss; ConfigError when it cannot be used."""
        named = self._settings.loss
        return losses.build(named.name, named.arguments) if named else losses.build("BCELoss", {})

    @cached_property
    def metrics(self) -> dict[str, metrics.Metric]:
        """The config's own metrics by column."""
        return metrics.build(self._settings.metrics)


def build_model(run: Run) -> nn.Module:
    """The network of a run, with its Objective as the attribute `objective`."""
    network = model.build(settings_of(run))
    network.objective = Objective(settings_of(run))  # type: ignore[assignment]
    return network


def optimization(
    run: Run, network: nn.Module, stage: Stage, pace: Pace, names: tuple[str, ...] | None = None
) -> Optimization:
    """The config's optimizer and schedule over what trains; ConfigError here, not at the first step.

    names: of the metric columns, where they are not those of `column_names`.
    """
    settings = settings_of(run)
    parts = (*(("valid",) if settings.sources.validation is not None else ()), "train")
    objective(network).loss  # noqa: B018  (a loss that cannot be used should fail here)
    objective(network).metrics  # noqa: B018
    assert settings.optimizer is not None  # the dialect sees to that when there are files to train on
    rates, scheduler = settings.rates, settings.rates.scheduler
    optimizer = schedule.build_optimizer(
        [p for p in network.parameters() if p.requires_grad],
        settings.optimizer.name,
        settings.optimizer.arguments,
    )
    moved = schedule.RateSchedule(
        optimizer,
        pace,
        scaling=rates.scaling,
        warmup_epochs=rates.warmup_epochs,
        scheduler=scheduler.name if scheduler else None,
        arguments=scheduler.arguments if scheduler else None,
        interval=rates.interval,
        metric=rates.metric,
        columns=[f"{part}_{name}" for part in parts for name in ("loss", *(names or column_names(run)))],
        epochs=run.epochs,
        iterations=run.iterations,
    )
    return Optimization(optimizer, moved)


def objective(network: nn.Module) -> Objective:
    """The Objective that `build_model` gave the network."""
    found = network.objective
    assert isinstance(found, Objective)
    return found


def step(network: nn.Module, batch: Batch, context: Context) -> Outcome:
    """Loss terms over voxels, the probabilities (N, 1) and the sums of the config's metrics.

    Without labels in the batch there are no terms.
    """
    coords, features = batch[COORDS], batch[FEATURES]
    logits_of: Callable[..., Tensor] | None = getattr(network, "logits", None)
    if logits_of is None:
        prediction = losses.Prediction(network(coords, features))
    else:
        logits = logits_of(coords, features)
        logits = logits if logits.dtype.itemsize > 2 else logits.float()  # bf16 has too few steps near 1
        prediction = losses.Prediction(logits.sigmoid(), logits)
    outputs = {"probability": prediction.value}
    labels = batch.tensors.get(LABELS)
    if labels is None:
        return Outcome({}, outputs)
    terms = objective(network).loss(prediction, labels)
    for name, metric in objective(network).metrics.items():
        total, weight = metric(prediction.value.detach(), labels)
        outputs[f"{_USER}{name}/sum"], outputs[f"{_USER}{name}/weight"] = total, weight
    return Outcome(terms, outputs)


def count(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Sums for the summary: the config's metrics, counts for the balanced accuracy, score histograms of true
    and ghost voxels.
    """
    scores, labels = outputs["probability"], batch[LABELS]
    true = (labels > 0).reshape(-1)
    return {
        **{name: value for name, value in outputs.items() if name.startswith(_USER)},
        **metrics.binary_counts(scores, labels),
        "true_scores": metrics.score_histogram(scores.reshape(-1)[true], THRESHOLDS),
        "ghost_scores": metrics.score_histogram(scores.reshape(-1)[~true], THRESHOLDS),
    }


def columns(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The metric columns of a summary row."""
    own = {
        name.removeprefix(_USER).removesuffix("/sum"): metrics.ratio(
            total, sums[name.removesuffix("sum") + "weight"]
        )
        for name, total in sums.items()
        if name.startswith(_USER) and name.endswith("/sum")
    }
    curve = curve_from_histograms(
        sums["true_scores"].cpu().numpy(), sums["ghost_scores"].cpu().numpy(), THRESHOLDS
    )
    return {
        **own,
        "balanced_accuracy": metrics.balanced_accuracy(sums),
        "auc_pe": curve.auc_pe,
        "break_even": curve.break_even,
    }


def column_names(run: Run) -> tuple[str, ...]:
    """The config's own metrics first, then COLUMNS."""
    return (*(name for name in settings_of(run).metrics if name not in COLUMNS), *COLUMNS)


def predict(network: nn.Module, batch: Batch, outcome: Outcome) -> Tables:
    """Rows of the yinf shard: coordinates, probability, and labels when the batch has them."""
    rows = {"coords": batch[COORDS][:, 1:], "probability": outcome.outputs["probability"].reshape(-1).float()}
    if LABELS in batch.tensors:
        rows["labels"] = batch[LABELS].reshape(-1).float()
    return {"voxels": rows}


def yinf_schema(run: Run) -> Schema:
    """The same for every run."""
    return YINF


def yinf_attributes(run: Run) -> dict[str, Any]:
    """What the values mean."""
    threshold = settings_of(run).reading.threshold
    return {"kind": "probability", **({} if threshold is None else {"threshold": threshold})}


def monitor(run: Run) -> tuple[str, str]:
    """The best epoch has the largest area under the purity-efficiency curve."""
    validates = settings_of(run).sources.validation is not None
    return ("valid_auc_pe" if validates else "train_auc_pe", "max")


TASK = Task(
    read=dataset.reader,
    model=build_model,
    optimization=optimization,
    step=step,
    metrics=count,
    columns=columns,
    column_names=column_names,
    predict=predict,
    yinf=yinf_schema,
    yinf_attributes=yinf_attributes,
    monitor=monitor,
)
