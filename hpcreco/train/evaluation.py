"""A model over whole files without training: sums for validation, tables for yinf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from hpcreco.config import Run
from hpcreco.data.batch import Batch, Ref
from hpcreco.data.loader import Loader
from hpcreco.data.plan import references
from hpcreco.data.sharing import Share, micro_batches, split
from hpcreco.train.session import Part
from hpcreco.train.step import cast
from hpcreco.train.sums import Sums
from hpcreco.train.task import Context, Outcome, Task

#: takes what the model said about a batch: (batch, outcome, sums of that batch)
Sink = Callable[[Batch, Outcome, Sums], None]


def shares(part: Part, files: Sequence[int], budget: float | None) -> list[Share]:
    """The events of `files` (numbers of shards), each once, in order, in batches that do not cross a shard.

    budget: largest cost of a batch; None lets the costliest event be the measure.
    """
    first = np.asarray(part.index.first, np.int64)
    limit = part.largest if budget is None else budget
    out = []
    for number in files:
        events = np.arange(first[number], first[number + 1])
        refs = references(first, events)
        costs = part.costs[events].tolist()
        for positions in micro_batches(costs, limit):
            batch = (tuple(refs[i] for i in positions), tuple(costs[i] for i in positions))
            out.append(Share((batch,), 0, 1.0))
    return out


def my_files(part: Part, rank: int, ranks: int) -> list[int]:
    """The shards that `rank` evaluates, balanced by cost."""
    first = np.asarray(part.index.first, np.int64)
    loads = [float(part.costs[lo:hi].sum()) for lo, hi in pairwise(first)]
    return split([Ref(number, 0) for number in range(len(loads))], loads, ranks)[rank]


def evaluate(
    task: Task,
    run: Run,
    model: nn.Module,
    part: Part,
    work: Sequence[Share],
    device: torch.device,
    sink: Sink | None = None,
) -> Sums:
    """This rank's sums over `work`, with the model in eval(); nothing collective happens inside."""
    model.eval()
    sums = Sums()
    for batch, outcome, own in outcomes(task, run, model, part, work, device):
        if sink is not None:
            sink(batch, outcome, own)
        sums.merge(own)
    return sums


def outcomes(
    task: Task, run: Run, model: nn.Module, part: Part, work: Sequence[Share], device: torch.device
) -> Iterator[tuple[Batch, Outcome, Sums]]:
    """Batch by batch: the batch, what `task.step` makes of it, and its sums."""
    dtype = torch.float64 if run.precision == "float64" else torch.float32
    context = Context("evaluation", 0, False, torch.Generator().manual_seed(run.seed))
    with Loader(part.dataset, iter(work), run.loading.workers, run.loading.prefetch) as feed, torch.no_grad():
        for _, batches in feed:
            batch = cast(batches[0], device, dtype)
            with torch.autocast(device.type, torch.bfloat16, enabled=run.amp):
                outcome = task.step(model, batch, context)
            own = Sums()
            if outcome.terms:
                own.add_outcome(outcome, task.metrics(outcome.outputs, batch))
            own.add({"events": batch.n_events, "cost": batch.cost})
            yield batch, outcome, own
