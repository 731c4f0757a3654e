"""The seam between the core and an experiment: a frozen `Task` of functions.

The training loop knows nothing else of an experiment. Losses are returned as terms, each a (sum, weight) pair,
because different terms have different denominators (voxels, cells, edges, events): the loss of a global step is
``sum over terms of coefficient * (sum over ranks of sum) / (sum over ranks of weight)``, which one scalar per
rank could not express.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hpcreco.config import Run
from hpcreco.data.batch import Batch
from hpcreco.data.dataset import ReadEvent
from hpcreco.shards import Schema


class Term(NamedTuple):
    """One loss term of a micro-batch: the sum over its items, and what to divide the global sum by."""

    sum: Tensor
    weight: Tensor
    coefficient: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What `Task.step` returns: loss terms by name, and outputs for metrics."""

    terms: Mapping[str, Term]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Context:
    """Where training stands when `Task.step` is called."""

    stage: str
    step: int
    training: bool
    generator: torch.Generator


class Schedule(Protocol):
    """Sets the learning rates: called before every step and after every epoch."""

    def before_step(self, step: int) -> None:
        """Set the learning rates for global step `step` (0-based, counted within the stage)."""

    def after_epoch(self, row: Mapping[str, Any]) -> None:
        """See the epoch's summary row (validation included); plateau schedules act here."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Optimization:
    """An optimizer and what drives its learning rates."""

    optimizer: torch.optim.Optimizer
    schedule: Schedule


@dataclass(frozen=True)
class Pace:
    """What an optimization may depend on: `steps` per epoch and the number of `ranks`."""

    steps_per_epoch: int
    ranks: int


@dataclass(frozen=True)
class Stage:
    """A part of training in which the same parameters and terms take part.

    `trainable`: fnmatch patterns over dotted parameter names; modules without a trainable parameter stay in eval().
    `terms`: names of the enabled loss terms, None = all. The stage ends after `epochs` or `steps`, or after the
    epoch for which `until(summary row)` is true; with none of the three it lasts until the run's own end.
    """

    name: str
    trainable: tuple[str, ...] = ("*",)
    terms: frozenset[str] | None = None
    epochs: int | None = None
    steps: int | None = None
    until: Callable[[Mapping[str, Any]], bool] | None = None
    keep_optimizer: bool = False


#: predictions for yinf: {table: {field: rows}}; rows follow the batch's offsets of that table, or one row per event
Tables = Mapping[str, Mapping[str, Tensor]]


def one_stage(run: Run) -> tuple[Stage, ...]:
    """The stages of a task that trains everything from beginning to end."""
    return (Stage("main"),)


@dataclass(frozen=True)
class Task:
    """The torch half of an experiment, all functions.

    read:         (run, training) -> ReadEvent; what of a shard becomes an Event, augmentation included
    model:        (run) -> module
    optimization: (run, model, stage, pace) -> Optimization
    step:         (model, batch, context) -> Outcome; terms are empty when the batch has no truth, and zero sums and
                  weights for a batch without events
    metrics:      (outputs, batch) -> summable tensors (scalars or histograms), added over batches and ranks
    columns:      (summed metrics) -> numbers of the summary row, keys exactly `column_names(run)`
    column_names: (run) -> names of the metric columns, declared up front for the CSV header
    predict:      (model, batch, outcome of `step`) -> Tables for yinf; called under no_grad, may enable
                  gradients itself
    yinf:         (run) -> Schema of the yinf shards, built with `hpcreco.yinf.ATTRIBUTES`
    yinf_attributes: (run) -> the experiment's own attributes of a yinf shard
    monitor:      (run) -> (column name, "min" or "max"): what "best" means and early stopping watches
    stages:       (run) -> stages in order
    prepare:      (run, index) -> None; a pre-pass artefact, made by rank 0 before the model is built
    """

    read: Callable[[Run, bool], ReadEvent]
    model: Callable[[Run], nn.Module]
    optimization: Callable[[Run, nn.Module, Stage, Pace], Optimization]
    step: Callable[[nn.Module, Batch, Context], Outcome]
    metrics: Callable[[Mapping[str, Tensor], Batch], dict[str, Tensor]]
    columns: Callable[[Mapping[str, Tensor]], dict[str, float]]
    column_names: Callable[[Run], tuple[str, ...]]
    predict: Callable[[nn.Module, Batch, Outcome], Tables]
    yinf: Callable[[Run], Schema]
    monitor: Callable[[Run], tuple[str, str]]
    yinf_attributes: Callable[[Run], dict[str, Any]] = lambda run: {}
    stages: Callable[[Run], tuple[Stage, ...]] = one_stage
    prepare: Callable[[Run, Any], None] | None = None
