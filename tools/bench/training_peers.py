#!/usr/bin/env python
"""The trainer, a bare loop and checkpoints by turns within one process; started by training.py, prints seconds as JSON.

    python tools/bench/training_peers.py FOLDER --rounds 5

A round is one pass over the events in FOLDER/xy, read before the clock starts. The first round warms up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cosmics
import torch

from hpcreco import config, experiment, parallel
from hpcreco.data.batch import Batch
from hpcreco.parallel.serial import Serial
from hpcreco.parallel.watchdog import Watchdog
from hpcreco.train import checkpoint, start
from hpcreco.train.loop import Loop
from hpcreco.train.session import Session, open_part
from hpcreco.train.state import Progress, TrainState
from hpcreco.train.stop import Stop
from hpcreco.train.writer import CheckpointWriter

Seconds = dict[str, list[float]]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    print(json.dumps(loop(args.folder, args.rounds)))
    return 0


def open_session(folder: Path, ranks: parallel.Parallel, **changes: object) -> Session:
    """ghost3d_cpu as it is, but for its data: `changes` are overrides of the config, dots written as __."""
    os.environ.setdefault("DATA", str(folder))
    steady = {"train__n_epochs": "null", "train__iterations": 10**6}
    raw = config.load(cosmics.CONFIG, cosmics.overrides(folder, **(steady | changes)))
    found = experiment.recognise(raw)
    run = found.load("normalise")(raw, False)
    task = found.task_of(run)
    return Session(run, found, task, ranks, open_part(found, task, run, ranks, "train"), None)


@dataclass(frozen=True)
class Between(Session):
    """A session whose data are in memory, and in which a peer takes each step before or after the trainer does."""

    rounds: int = 0
    peer: Callable[[Batch], None] = lambda batch: None
    bare: tuple[list[float], ...] = ()
    trained: tuple[list[float], ...] = ()

    def feed(self, progress: Progress) -> Any:
        return nullcontext(self._steps(progress))

    def _steps(self, progress: Progress) -> Iterator[Any]:
        with Session.feed(self, progress) as reading:
            shares = list(islice(reading, self.planner(0).steps_in(0, 1)))
        for number in range(self.rounds):
            for place, (share, batches) in enumerate(shares):
                if place % 2 == 0:  # who comes first changes
                    self._time_peer(batches[0], number)
                began = time.process_time()
                yield share, batches
                self.trained[number].append(time.process_time() - began)
                if place % 2:
                    self._time_peer(batches[0], number)

    def _time_peer(self, batch: Batch, number: int) -> None:
        began = time.process_time()
        self.peer(batch)
        self.bare[number].append(time.process_time() - began)


def loop(folder: Path, rounds: int) -> Seconds:
    """CPU seconds per round of a bare loop and of the trainer, by turns step by step; wall seconds per checkpoint."""
    ranks = Serial(torch.device("cpu"))
    torch.set_num_threads(1)
    opened = open_session(folder, ranks, data__event_batch=1)
    steps = opened.planner(0).steps_in(0, 1)
    run = opened.run.model_copy(
        update={"iterations": rounds * steps, "validate_every": config.Cadence(every=10**6, unit="steps")}
    )
    lists = [tuple([] for _ in range(rounds)) for _ in range(2)]
    session = Between(
        **{**vars(opened), "run": run},
        rounds=rounds + 1,
        peer=bare_step(opened),
        bare=(*lists[0], []),
        trained=(*lists[1], []),
    )
    with Stop() as stop, Watchdog(None, ranks) as watchdog:
        state = start.begin(session, start.Request(overwrite=True))
        Loop(session, state, stop, watchdog, []).run()
    kept = range(1, rounds - 1)  # the last step of the last round is not timed
    return {
        "bare loop": [sum(session.bare[number]) for number in kept],
        "trainer": [sum(session.trained[number]) for number in kept],
        **saving(session, state, 2 * rounds),
    }


def bare_step(session: Session) -> Callable[[Batch], None]:
    """Forward, loss, backward and update as a user would write them; the same network, clipping and optimizer."""
    network = session.new_model().train()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        score = network.logits(batch["voxels/coords"], batch["voxels/features"])  # type: ignore[operator]
        torch.nn.functional.binary_cross_entropy_with_logits(score, batch["voxels/labels"]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    return step


def saving(session: Session, state: TrainState, rounds: int) -> Seconds:
    """Seconds that training stands still for a checkpoint: written at once, and beside the training."""
    folder = session.output_dir / "saving"
    writer = CheckpointWriter(folder, None)
    seconds: Seconds = {"synchronous": [], "asynchronous": []}
    for number in range(rounds):
        payload = state.payload(session.run, session.stages, session.digests)
        began = time.perf_counter()
        path = checkpoint.folder(folder) / checkpoint.name(2 * number)
        checkpoint.save(path, payload)
        checkpoint.point(folder, "latest", path)
        checkpoint.prune(folder, None)
        turn = time.perf_counter()
        writer.save(checkpoint.name(2 * number + 1), payload, best=False)
        ended = time.perf_counter()
        writer.finish()
        seconds["synchronous"].append(turn - began)
        seconds["asynchronous"].append(ended - turn)
    writer.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
