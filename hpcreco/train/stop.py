"""When to stop: signals, and the end of the job's time."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from types import FrameType

#: exit code of a run that was asked to stop, saved and can be resumed; job scripts requeue on it
EXIT_STOPPED = 75

#: seconds within which INTs count as one: a terminal and a launcher may both deliver the same Ctrl-C
_PATIENCE = 1.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """Remembers that somebody asked for an end; the training loop looks after each step.

    A signal is remembered, the step is finished and saved. Launchers may send theirs more than once, so a repeated
    one changes nothing; only a second Ctrl-C (INT) of an impatient user ends the process at once.
    `wall_end` is the Unix time at which the job is killed: the run stops early enough to save.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, save_margin: float = 30.0) -> None:
        self.reason: str | None = None
        self._margin = save_margin
        self._steps = 0
        self._longest_step = 0.0
        self._interrupted = math.inf
        self._previous: dict[int, object] = {}
        end = environ.get("SLURM_JOB_END_TIME", "") or environ.get("HPCRECO_JOB_END_TIME", "")
        self.wall_end = float(end) if end.isdigit() else None

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and now - self._interrupted > _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if number == signal.SIGINT:
            self._interrupted = min(self._interrupted, now)
        self.reason = self.reason or signal.Signals(number).name

    def step_took(self, seconds: float) -> None:
        """Note a step's duration: the time limit must leave room for a few more of them.

        The first compiles kernels, minutes on busy nodes, and says nothing of those that follow.
        """
        self._steps += 1
        if self._steps > 1:
            self._longest_step = max(self._longest_step, seconds)

    def requested(self) -> bool:
        """Has a signal come, or is the job's time nearly over?"""
        room = self._margin + 3 * self._longest_step
        if self.reason is None and self.wall_end is not None and time.time() > self.wall_end - room:
            self.reason = "the job's time limit"
        return self.reason is not None
