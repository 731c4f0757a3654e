"""ProtoDUNE as a task: what a network says of every candidate voxel, its probability to hold charge or its charge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hpcreco.config import Run
from hpcreco.data.batch import Batch
from hpcreco.experiments.protodune import dataset, model, objective, scaling
from hpcreco.experiments.protodune.files import settings_of
from hpcreco.experiments.protodune.objective import COORDS, FEATURES, LABELS, QUANTITIES, Objective
from hpcreco.experiments.protodune.yinf import YINF
from hpcreco.nn import metrics
from hpcreco.shards import Index, Schema
from hpcreco.train import checkpoint, schedule
from hpcreco.train.task import Context, Optimization, Outcome, Pace, Stage, Tables, Task

_OF_OUTPUT = {quantity.output: quantity for quantity in QUANTITIES.values()}


def build_model(run: Run) -> nn.Module:
    """The network of a run, with its Objective as the attribute `objective`."""
    network = model.build(settings_of(run))
    network.objective = Objective(run)  # type: ignore[assignment]
    return network


def prepare(run: Run, index: Index) -> None:
    """Measure the scales that the config leaves open; those of a run that has checkpoints stay as they are."""
    kept = scaling.file_of(run).is_file() and bool(checkpoint.found(run.output_dir))
    if scaling.wanted(run) and not kept:
        scaling.measure(run, index)


def stages(run: Run) -> tuple[Stage, ...]:
    """One stage; with `freeze` only the head trains."""
    named = settings_of(run).model
    frozen = named.name == "cellnet_charge" and named.arguments["freeze"]
    return (Stage("main", trainable=model.HEAD if frozen else ("*",)),)


def optimization(
    run: Run, network: nn.Module, stage: Stage, pace: Pace, names: tuple[str, ...] | None = None
) -> Optimization:
    """The config's optimizer and schedule over what trains; ConfigError here, not at the first step.

    names: of the metric columns, where they are not those of `column_names`.
    """
    settings = settings_of(run)
    parts = (*(("valid",) if settings.sources.validation is not None else ()), "train")
    objective.of(network).loss  # noqa: B018  (a loss that cannot be used should fail here)
    objective.of(network).metrics  # noqa: B018
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


def step(network: nn.Module, batch: Batch, context: Context) -> Outcome:
    """Loss terms over voxels, the values (N, 1) and the sums of the config's metrics.

    Without labels in the batch there are no terms.
    """
    judged = objective.of(network)
    prediction = judged.quantity.predict(network, batch[COORDS], batch[FEATURES])
    values = judged.values(prediction)
    outputs = {judged.quantity.output: values}
    labels = batch.tensors.get(LABELS)
    if labels is None:
        return Outcome({}, outputs)
    outputs |= metrics.measure(judged.metrics, values, labels)
    return Outcome(judged.terms(prediction, batch), outputs)


def count(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Sums for the summary: the config's metrics, and those of the predicted quantity under its name."""
    output = _output(outputs)
    own = _OF_OUTPUT[output].count(outputs[output], batch[LABELS], batch.offsets["voxels"])
    return {
        **metrics.measures(outputs),
        **{f"{output}/{name}": value for name, value in own.items()},
    }


def columns(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The metric columns of a summary row."""
    output = _output(sums)
    head = f"{output}/"
    judged = _OF_OUTPUT[output].columns(
        {name.removeprefix(head): value for name, value in sums.items() if name.startswith(head)}
    )
    return {**metrics.measured(sums), **judged}


def _output(named: Mapping[str, Any]) -> str:
    """Which quantity outputs or sums are of, by their names."""
    return next(head for name in named if (head := name.partition("/")[0]) in _OF_OUTPUT)


def column_names(run: Run) -> tuple[str, ...]:
    """The config's own metrics first, then those of the predicted quantity."""
    settings = settings_of(run)
    names = QUANTITIES[settings.predicts].names
    return (*(name for name in settings.metrics if name not in names), *names)


def predict(network: nn.Module, batch: Batch, outcome: Outcome) -> Tables:
    """Rows of the yinf shard: coordinates, probability or charge, and labels when the batch has them."""
    output = objective.of(network).quantity.output
    rows = {"coords": batch[COORDS][:, 1:], output: outcome.outputs[output].reshape(-1).float()}
    if LABELS in batch.tensors:
        rows["labels"] = batch[LABELS].reshape(-1).float()
    return {"voxels": rows}


def yinf_schema(run: Run) -> Schema:
    """The same for every run."""
    return YINF


def yinf_attributes(run: Run) -> dict[str, Any]:
    """What the values mean."""
    settings = settings_of(run)
    threshold = settings.reading.threshold
    return {"kind": settings.predicts, **({} if threshold is None else {"threshold": threshold})}


def monitor(run: Run) -> tuple[str, str]:
    """The column that the best epoch has the best of, of validation if there is one."""
    settings = settings_of(run)
    name, direction = QUANTITIES[settings.predicts].monitor
    return (f"{'valid' if settings.sources.validation is not None else 'train'}_{name}", direction)


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
    stages=stages,
    prepare=prepare,
)
