"""Steps of several micro-batches on ranks that differ in speed and in what they have to do, against one rank's."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpcreco import parallel, world
from hpcreco.config import Parallel as Settings
from hpcreco.config import Run, Strict
from hpcreco.data.batch import Batch, Event, Ref, collate
from hpcreco.nn.normalisation import BatchNorm, synchronise
from hpcreco.parallel.serial import Serial
from hpcreco.train.step import Control, Stepper
from hpcreco.train.task import Context, Optimization, Outcome, Stage, Task, Term

WIDTH, PASSES, STEPS = 4, 3, 8
TABLES = ("hits", "pulses")


class Net(nn.Module):
    """A trunk, normalised or not, and a head for each table; a table without rows is not looked at, so that a batch
    may touch all parameters, some, or none. When normalised, every batch runs through the trunk.
    """

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.hits, self.pulses = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1)
        self.trunk = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norms = nn.ModuleList(BatchNorm(WIDTH) for _ in range(3 if normalised else 0))
        self.pause = 0.0

    def forward(self, rows: Sequence[Tensor]) -> list[Tensor]:
        x = torch.cat(list(rows))
        for number, layer in enumerate(self.trunk):
            x = torch.tanh(layer(x))
            x = self.norms[number](x) if self.norms else x
            if self.pause:
                x.register_hook(lambda _: time.sleep(random.random() * self.pause))
        parts = x.split([len(part) for part in rows])
        return [head(part).square().sum() for head, part in zip((self.hits, self.pulses), parts, strict=True)]


def step(model: Net, batch: Batch, context: Context) -> Outcome:
    rows = [batch[f"{name}/x"] for name in TABLES]
    sums = [torch.zeros((), dtype=torch.float64) for _ in rows]
    if model.norms or any(len(part) for part in rows):
        found = model(rows)
        sums = [f if model.norms or len(part) else s for f, s, part in zip(found, sums, rows, strict=True)]
    weights = [torch.tensor(float(len(part))) for part in rows]
    return Outcome({n: Term(s, w, 0.7) for n, s, w in zip(TABLES, sums, weights, strict=True)}, {})


TASK = Task(
    **{name: lambda *_: None for name in Task.__dataclass_fields__} | {"step": step, "metrics": lambda *_: {}}  # type: ignore[arg-type]
)


class Constant:
    """A schedule that leaves the rate alone."""

    def before_step(self, step: int) -> None:
        """Nothing changes."""


def plan(number: int, ranks: int) -> list[list[Event]]:
    """Events of a step by rank and micro-batch: with both tables, one, or none; the last ones are often empty."""
    rng = np.random.default_rng(number)

    def event(place: int) -> Event:
        rows = rng.integers(0, 5, 2) * (rng.random(2) < 0.7) * (place + 1 < PASSES or rng.random() < 0.6)
        return Event({name: {"x": rng.normal(size=(n, WIDTH))} for name, n in zip(TABLES, rows, strict=True)})

    return [[event(place) for place in range(PASSES)] for _ in range(ranks)]


def batch_of(events: Sequence[Event]) -> Batch:
    refs = tuple(Ref(0, number) for number in range(len(events)))
    return collate(events, refs, (1.0,) * len(events), like=events[0])


def stepper(ranks: parallel.Parallel, normalised: bool) -> tuple[Net, Stepper]:
    torch.manual_seed(0)
    model = Net(normalised).double()
    synchronise(model, ranks.sum if ranks.size > 1 else None)
    settings = Settings(bucket_mb=1e-6, sync_batch_norm=normalised)
    run = Run(experiment="", output_dir=Path(), settings=Strict(), precision="float64", parallel=settings)
    optimization = Optimization(torch.optim.SGD(model.parameters(), 0.01), Constant())  # type: ignore[arg-type]
    return model, Stepper(TASK, run, model, optimization, Stage("main"), 0, ranks)


def check(ranks: parallel.Parallel, normalised: bool) -> None:
    """After each step the weights are those that one rank has, which sees everyone's k-th micro-batches at once."""
    model, mine = stepper(ranks, normalised)
    alone, all_of_it = stepper(Serial(torch.device("cpu")), normalised)
    model.pause = 0.002 * (1 + ranks.rank)
    with mine, all_of_it:
        for number in range(STEPS):
            events = plan(number, ranks.size)
            taken = mine.take([batch_of([e]) for e in events[ranks.rank]], number, Control())
            expected = all_of_it.take([batch_of(e) for e in zip(*events, strict=True)], number, Control())
            assert abs(taken.gradient_norm - expected.gradient_norm) < 1e-10 * (1 + expected.gradient_norm)
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-9, atol=1e-12, msg=name)


ranks = parallel.open(sys.argv[1], world.detect())
random.seed(ranks.rank)
for normalised in (False, True):
    check(ranks, normalised)
os.write(1, b"checked %d\n" % ranks.rank)
ranks.close()
