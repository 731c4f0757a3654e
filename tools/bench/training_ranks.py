#!/usr/bin/env python
"""Training steps of ranks by turns; started by training.py, prints seconds (and bytes, where named so) as JSON.

    mpiexec -n 2 python tools/bench/training_ranks.py sharing FOLDER --rounds 4    # one rank, two, two without overlap
    mpiexec -n 2 python tools/bench/training_ranks.py compression FOLDER --backend ddp

A round is one pass over the events in FOLDER/xy, read before the clock starts. The first round warms up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from training_peers import Seconds, open_session

from hpcreco import parallel, world
from hpcreco.parallel.gradients import GradientSum
from hpcreco.parallel.serial import Serial
from hpcreco.train.session import Session
from hpcreco.train.state import Progress, select_trainable
from hpcreco.train.step import Control, Stepper

#: sums of gradients in a round of those without computing
SUMS = 20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["sharing", "compression"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--backend", choices=["horovod", "ddp"])
    args = parser.parse_args()
    work = two_ranks if args.what == "sharing" else compressions
    seconds = work(args.folder, args.rounds, args.backend)
    if world.detect().rank == 0:
        print(json.dumps(seconds))
    return 0


def two_ranks(folder: Path, rounds: int, backend: str | None) -> Seconds:
    """Wall seconds per round of the same steps: by rank 0 alone, shared with overlap, and shared without."""
    ranks = parallel.open(backend, world.detect(), output_dir=folder)
    torch.set_num_threads(1)
    together = open_session(folder, ranks, data__event_batch=2)
    sessions = {"overlapped": together, "flat": set_parallel(together, overlap=False)}
    if ranks.rank == 0:
        sessions = {"one rank": replace(together, parallel=Serial(ranks.device)), **sessions}
    steppers = {name: stepper(session) for name, session in sessions.items()}
    mine, alone = batches_of(together), []
    if ranks.rank == 0:
        alone = batches_of(sessions["one rank"], len(mine))

    def take(name: str, step: int) -> None:
        if name in steppers:
            steppers[name].take(alone[step] if name == "one rank" else mine[step], step, Control())

    seconds = by_turns(ranks, ("one rank", "overlapped", "flat"), rounds, len(mine), take)
    ranks.close()
    return seconds


def compressions(folder: Path, rounds: int, backend: str | None) -> Seconds:
    """Each `parallel.compression` of the backend: wall seconds per round of the same steps, those of `SUMS` sums of
    gradients without any computing, and the bytes that a rank hands over in a step.
    """
    ranks = parallel.open(backend, world.detect(), output_dir=folder)
    torch.set_num_threads(1)
    opened = open_session(folder, ranks, data__event_batch=2)
    kinds = ["none", "fp16", *(["bf16"] if ranks.adds(torch.bfloat16) else [])]
    steppers = {kind: stepper(set_parallel(opened, compression=kind)) for kind in kinds}
    batches = batches_of(opened)

    def take(kind: str, step: int) -> None:
        steppers[kind].take(batches[step], step, Control())

    steps = by_turns(ranks, kinds, rounds, len(batches), take)
    model = opened.new_model()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    counted = {kind: Counted(ranks) for kind in kinds}
    bucket = int(opened.run.parallel.bucket_mb * 2**20)
    sums = {
        kind: GradientSum(model.named_parameters(), counted[kind], bucket, compression=kind)  # type: ignore[arg-type]
        for kind in kinds
    }
    alone = by_turns(ranks, kinds, rounds, SUMS, lambda kind, step: sums[kind].finish())
    ranks.close()
    return {
        **{f"{backend}, {kind}: steps": values for kind, values in steps.items()},
        **{f"{backend}, {kind}: sums alone": values for kind, values in alone.items()},
        **{f"{backend}, {kind}: bytes": [count.bytes / (rounds * SUMS)] for kind, count in counted.items()},
    }


class Counted:
    """Ranks that count the bytes they are given to add."""

    def __init__(self, ranks: parallel.Parallel) -> None:
        self.bytes = 0
        self._ranks = ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)

    def begin_sum_(self, tensor: torch.Tensor, name: str) -> parallel.Pending:
        self.bytes += tensor.nbytes
        return self._ranks.begin_sum_(tensor, name)


def by_turns(
    ranks: parallel.Parallel,
    names: Sequence[str],
    rounds: int,
    steps: int,
    take: Callable[[str, int], None],
) -> Seconds:
    """Wall seconds of the slowest rank per round of `steps` calls of take(name, step); the first round warms up."""
    seconds: Seconds = {name: [] for name in names}
    for _ in range(rounds):
        spent = dict.fromkeys(names, 0.0)
        for step in range(steps):
            for name in names if step % 2 else reversed(names):  # who comes first changes
                ranks.barrier()
                began = time.perf_counter()
                take(name, step)
                took = ranks.gather_object(time.perf_counter() - began)
                spent[name] += max(took or [0.0])
        for name, value in spent.items():
            seconds[name].append(value)
    return {name: values[1:] for name, values in seconds.items()}


def batches_of(session: Session, count: int | None = None) -> list[Any]:
    """This rank's micro-batches of the steps of an epoch."""
    count = count or session.planner(0).steps_in(0, session.parallel.size)
    with session.feed(Progress()) as reading:
        return [batches for _, batches in islice(reading, count)]


def set_parallel(session: Session, **changes: object) -> Session:
    """The session with other keys of `parallel:`."""
    changed = session.run.parallel.model_copy(update=changes)
    return replace(session, run=session.run.model_copy(update={"parallel": changed}))


def stepper(session: Session) -> Stepper:
    """What takes the steps of a session."""
    stage = session.stages[0]
    model = session.new_model()
    select_trainable(model, stage)
    optimization = session.task.optimization(session.run, model, stage, session.pace(0))
    return Stepper(session.task, session.run, model, optimization, stage, 0, session.parallel)


if __name__ == "__main__":
    sys.exit(main())
