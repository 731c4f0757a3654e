"""What a user sees while a run trains: a bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from hpcreco.config import Cadence

LOG = logging.getLogger("hpcreco")


def start_log(output_dir: Path, rank: int, *, verbose: bool, rank_files: bool) -> None:
    """Rank 0 logs to the terminal and ``train.log``; with `rank_files` every rank also to ``out_<rank>.log``."""
    stop_log()
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)
    LOG.propagate = False
    targets: list[logging.Handler] = []
    if rank == 0:
        targets += [logging.StreamHandler(sys.stdout), logging.FileHandler(output_dir / "train.log")]
    if rank_files:
        targets.append(logging.FileHandler(output_dir / f"out_{rank}.log"))
    for handler in targets or [logging.NullHandler()]:
        to_file = isinstance(handler, logging.FileHandler)
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(message)s" if to_file else "%(message)s", "%Y-%m-%d %H:%M:%S")
        )
        LOG.addHandler(handler)


def stop_log() -> None:
    """Close what `start_log` opened."""
    for handler in list(LOG.handlers):
        handler.close()
        LOG.removeHandler(handler)


class StepReport:
    """Says how far an epoch is, on rank 0: a bar where there is a terminal, a line every `cadence` otherwise."""

    def __init__(self, show: bool, cadence: Cadence) -> None:
        self._show, self._cadence = show, cadence
        self._bar: Any = None
        self._task: Any = None
        self._last_time, self._last_step = time.monotonic(), 0

    def __enter__(self) -> StepReport:
        if self._show and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, done: int, total: int, step: int, loss: float) -> None:
        """A step was taken: the `done`-th of `total` of `epoch`, the `step`-th in all."""
        LOG.debug("epoch %d  step %d  loss %.5f", epoch, step, loss)
        if not self._show:
            return
        if self._bar is not None:
            if self._task is None or self._bar.tasks[0].completed >= done:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(f"epoch {epoch}", total=total, loss="")
            self._bar.update(self._task, completed=done, loss=f"loss {loss:.4f}")
        elif self._due(step):
            LOG.info("epoch %d  step %d/%d  loss %.5f", epoch, done, total, loss)

    def _due(self, step: int) -> bool:
        now = time.monotonic()
        if self._cadence.unit == "seconds":
            due = now - self._last_time >= self._cadence.every
        else:
            due = self._cadence.unit == "steps" and step - self._last_step >= self._cadence.every
        if due:
            self._last_time, self._last_step = now, step
        return due
