"""Which task a run is: voxels of xy shards, voxels or images that are made, and the greeting of `hello`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcreco import world
from hpcreco.config import Run
from hpcreco.data.batch import Batch, Event
from hpcreco.data.dataset import ReadEvent
from hpcreco.experiments.protodune import objective
from hpcreco.experiments.protodune import task as voxels
from hpcreco.experiments.protodune.files import settings_of
from hpcreco.experiments.protodune.objective import Objective
from hpcreco.experiments.protodune.plugins import data, model
from hpcreco.experiments.protodune.plugins.yinf import CLASSES
from hpcreco.nn import metrics
from hpcreco.nn.prediction import Prediction
from hpcreco.shards import Made
from hpcreco.train.task import Context, Optimization, Outcome, Pace, Stage, Tables, Task

IMAGE, LABEL = "images/image", "images/label"


class EventError(ValueError):
    """A data set of a user's own makes events that cannot be used."""

    exit_code = 1


def of(run: Run) -> Task:
    """The task of a run."""
    settings = settings_of(run)
    found = voxels.TASK
    if settings.made is not None:
        is_images = data.table_of(settings.made) == data.IMAGES
        found = IMAGES if is_images else replace(voxels.TASK, read=read)
    return replace(found, model=_greeting(found.model)) if settings.greets else found


def _greeting(build: Callable[[Run], nn.Module]) -> Callable[[Run], nn.Module]:
    """`build` that also says, on every rank, where it is."""

    def greet_and_build(run: Run) -> nn.Module:
        here = world.detect()
        gpus = f", {torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else ""
        print(
            f"hello from rank {here.rank} of {here.size} on {socket.gethostname()}: process {os.getpid()}, "
            f"torch {torch.__version__}, {torch.get_num_threads()} threads{gpus}",
            flush=True,
        )
        return build(run)

    return greet_and_build


# ---------------------------------------------------------------------------------------------- reading


def read(run: Run, training: bool) -> ReadEvent:
    """Events of the config's data set; those of the two parts never share their randomness."""
    named = settings_of(run).made
    assert named is not None
    source, table = data.build(named), data.table_of(named)
    part = "train" if training else "validation"

    def read_event(made: Made, position: int, rng: np.random.Generator) -> Event:
        number = int(made.event_ids[position])
        own = np.random.default_rng([int(rng.integers(2**63)), int(training)])
        return Event({table: _checked(source.event(part, number, own), table)})

    return read_event


def _checked(event: Mapping[str, Any], table: str) -> dict[str, np.ndarray]:
    """An event's arrays in the types and shapes that networks take. Raises EventError for one that is missing."""
    needed = ("coords", "features") if table == data.VOXELS else ("image", "label")
    missing = [name for name in needed if name not in event]
    if missing:
        raise EventError(
            f"the data set gives {', '.join(event)}; an event of {table} needs {', '.join(needed)}"
        )
    if table == data.IMAGES:
        return {
            "image": np.asarray(event["image"], np.float32)[None],
            "label": np.asarray(event["label"], np.int64).reshape(1),
        }
    arrays = {
        "coords": np.asarray(event["coords"], np.int32),
        "features": np.asarray(event["features"], np.float32),
    }
    if "labels" in event:
        arrays["labels"] = np.asarray(event["labels"], np.float32).reshape(-1, 1)
    return arrays


# ---------------------------------------------------------------------------------------------- images


def build_model(run: Run) -> nn.Module:
    """The network of a run with images, with its Objective as the attribute `objective`."""
    network = model.build(settings_of(run))
    network.objective = Objective(run)  # type: ignore[assignment]
    return network


def optimization(run: Run, network: nn.Module, stage: Stage, pace: Pace) -> Optimization:
    """As of voxels, with this task's columns."""
    return voxels.optimization(run, network, stage, pace, column_names(run))


def step(network: nn.Module, batch: Batch, context: Context) -> Outcome:
    """Loss terms over images, and their scores (N, classes); an empty batch does not go through the network."""
    images, labels = batch[IMAGE], batch[LABEL]
    judged = objective.of(network)
    scores = network(images) if len(images) else images.new_zeros((0, 2))
    outputs = {"scores": scores, **metrics.measure(judged.metrics, scores, labels)}
    return Outcome(judged.loss(Prediction(scores), labels), outputs)


def count(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Sums of the accuracy and of the config's own metrics."""
    right, images = metrics.accuracy(outputs["scores"], batch[LABEL])
    return {**metrics.measures(outputs), "right": right, "images": images}


def columns(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The metric columns of a summary row."""
    return {**metrics.measured(sums), "accuracy": metrics.ratio(sums["right"], sums["images"])}


def column_names(run: Run) -> tuple[str, ...]:
    """The config's own metrics first."""
    return (*(name for name in settings_of(run).metrics if name != "accuracy"), "accuracy")


def predict(network: nn.Module, batch: Batch, outcome: Outcome) -> Tables:
    """The likeliest class of each image and its probability."""
    best = outcome.outputs["scores"].float().softmax(dim=1).max(dim=1)
    return {"images": {"class": best.indices, "probability": best.values, "label": batch[LABEL]}}


def monitor(run: Run) -> tuple[str, str]:
    """The best epoch has the largest share of images in their class."""
    validates = settings_of(run).sources.validation is not None
    return ("valid_accuracy" if validates else "train_accuracy", "max")


IMAGES = Task(
    read=read,
    model=build_model,
    optimization=optimization,
    step=step,
    metrics=count,
    columns=columns,
    column_names=column_names,
    predict=predict,
    yinf=lambda run: CLASSES,
    monitor=monitor,
)
