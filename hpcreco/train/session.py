"""What stays fixed while a run trains: the config, the task, the data and the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from hpcreco import collective, experiment, shards
from hpcreco.config import Run
from hpcreco.data.dataset import EventDataset
from hpcreco.data.loader import Loader
from hpcreco.data.plan import StepPlanner
from hpcreco.data.sharing import Share, share
from hpcreco.nn.normalisation import synchronise
from hpcreco.parallel import Parallel
from hpcreco.train.staging import on_all, staged
from hpcreco.train.state import Progress
from hpcreco.train.task import Pace, Stage, Task

T = TypeVar("T")


def on_root(parallel: Parallel, work: Callable[[], T]) -> T:
    """Let rank 0 do `work` and give everyone its result, or its error; see `collective.on_root`."""
    return collective.on_root(parallel.rank, parallel.broadcast_object, work)


@dataclass(frozen=True)
class Part:
    """The shards of one part of the data, their events' costs and how to read them."""

    index: shards.Index
    costs: np.ndarray
    dataset: EventDataset

    @property
    def largest(self) -> float:
        """Cost of the costliest event."""
        return float(self.costs.max(initial=0.0))


def open_part(
    found: experiment.Experiment,
    task: Task,
    run: Run,
    parallel: Parallel,
    name: str,
    beat: Callable[[], None] = lambda: None,
) -> Part | None:
    """Index the shards of part `name`, the same on every rank; None when the config has no such part.

    beat: called now and then while shards are copied to the nodes.

    Rank 0 finds the files, every rank looks into its share of them: 10,000 shards are half a minute's work for one.
    """
    files = on_root(parallel, lambda: found.load("files")(run, name))
    if files is None:
        return None
    entries = None if isinstance(files, shards.Index) else _looked_into(files, parallel)

    def finish() -> tuple[shards.Index, np.ndarray]:
        index = files if entries is None else shards.join(entries)
        return index, np.asarray(found.load("cost")(run, index), np.float64)

    index, costs = on_root(parallel, finish)
    if run.loading.stage is not None:
        index = staged(index, run.loading.stage, parallel, beat)
    return Part(index, costs, EventDataset(index, task.read(run, name == "train"), run.seed))


def _looked_into(files: Sequence[Path], parallel: Parallel) -> list[shards.Entry] | None:
    """The entries of all files in their order, on rank 0; what one rank cannot read is an error on all."""
    mine = files[parallel.rank :: parallel.size]
    everyone = on_all(parallel, lambda: [shards.entry(path) for path in mine])
    if everyone is None:
        return None
    return [everyone[number % parallel.size][number // parallel.size] for number in range(len(files))]


@dataclass(frozen=True)
class Session:
    """A run with its ranks and its data."""

    run: Run
    experiment: experiment.Experiment
    task: Task
    parallel: Parallel
    training: Part | None
    validation: Part | None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run."""
        return self.task.stages(self.run)

    @property
    def root(self) -> bool:
        """Does this rank write the log, the summary and the checkpoints?"""
        return self.parallel.rank == 0

    @property
    def digests(self) -> dict[str, str]:
        """What a checkpoint says of the data it was trained on."""
        return {"index": self.training.index.digest} if self.training else {}

    @property
    def output_dir(self) -> Path:
        """Where everything goes."""
        return self.run.output_dir

    def new_model(self) -> nn.Module:
        """A model on this rank's device, the same on every rank and in every run of this seed."""
        torch.manual_seed(self.run.seed)
        model = self.task.model(self.run)
        if self.run.precision == "float64":
            model = model.double()
        model = model.to(self.parallel.device)
        if self.run.parallel.sync_batch_norm and self.parallel.size > 1:
            synchronise(model, self.parallel.sum)
        return model

    def planner(self, stage: int) -> StepPlanner:
        """The steps of stage number `stage`."""
        assert self.training is not None
        steps = self.run.steps
        return StepPlanner(
            self.training.index,
            self.training.costs,
            steps.mode,
            steps.size,
            self.run.seed,
            stage,
            rank_size=steps.rank_size,
        )

    def pace(self, stage: int) -> Pace:
        """What the stage's optimization may depend on."""
        return Pace(self.planner(stage).steps_in(0, self.parallel.size), self.parallel.size)

    def micro_budget(self) -> float | None:
        """Largest cost of a micro-batch, None for no limit."""
        return self.run.steps.micro_cost if np.isfinite(self.run.steps.micro_cost) else None

    def feed(self, progress: Progress) -> Loader:
        """This rank's shares of the steps from `progress` on, read ahead."""
        assert self.training is not None
        planner = self.planner(progress.stage)
        ranks, rank, whole = self.parallel.size, self.parallel.rank, self.run.steps.mode == "files"

        def shares() -> Iterator[Share]:
            for step in planner.stream(progress.data_epoch, progress.position, ranks):
                yield share(step, rank, ranks, self.micro_budget(), whole)

        return Loader(self.training.dataset, shares(), self.run.loading.workers, self.run.loading.prefetch)
