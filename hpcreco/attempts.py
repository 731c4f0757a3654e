"""The attempts of a job: what each start and end leaves behind, and what they say about another try.

A job that Slurm requeues has several attempts. Each writes a row when it starts and one when it ends by its own
decision; a start without an end was killed. The rows are all that `decide` knows of the past, so its answer is
the same wherever it is asked.

A *step* is a training step, or a finished file of a file-wise job: what a next attempt need not do again.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

COLUMNS = ("time", "event", "job", "restart", "ranks", "step", "reason")
#: how an attempt may end by itself; one that did not is "killed"
ENDS = ("done", "stopped", "failed")
#: attempts in a row that gained no step; one more would not get further
FRUITLESS = 3
#: exit codes of ranks that USR1 or USR2 ended before they listened: a warning or preemption during the start
STARTING = (138, 140)
#: where a file-wise job under a job script writes its attempts
VARIABLE = "HPCRECO_ATTEMPTS"


@dataclass(frozen=True)
class Attempt:
    """One start of a job and how it ended: "done", "stopped", "failed", or "killed" for a start without an end.

    A killed attempt's `step` is where it started: nobody knows how far it came. `job` is Slurm's job id, or
    ARRAY_TASK, or empty outside of Slurm.
    """

    job: str
    restart: int
    ranks: int
    started: float
    from_step: int
    outcome: str = "killed"
    ended: float | None = None
    step: int = 0
    reason: str = ""
    resumed: str = ""  # the checkpoint it went on from

    @property
    def succeeded(self) -> bool:
        """Did it end as it should: done, or asked to stop?"""
        return self.outcome in ("done", "stopped")


@dataclass(frozen=True)
class Decision:
    """Whether to requeue a job, and why, in words for its log."""

    requeue: bool
    reason: str
    done: bool = False


def job_of(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """This process's Slurm job (or array task) and how often it was restarted; ("", 0) outside of Slurm."""
    job = environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_TASK_ID" in environ:
        job = f"{environ.get('SLURM_ARRAY_JOB_ID', job)}_{environ['SLURM_ARRAY_TASK_ID']}"
    restart = environ.get("SLURM_RESTART_COUNT", "0")
    return job, int(restart) if restart.isdigit() else 0


class Record:
    """Writes the rows of one attempt to `path`; every row is on disk when its method returns."""

    def __init__(self, path: Path, ranks: int, environ: Mapping[str, str] = os.environ) -> None:
        self.path = path
        self._ranks = ranks
        self._job, self._restart = job_of(environ)

    def start(self, step: int, resumed: str = "") -> None:
        """The attempt begins with `step` steps behind it, going on from the checkpoint `resumed`."""
        self._append("start", step, resumed)

    def end(self, outcome: str, step: int, reason: str = "") -> None:
        """The attempt ends by its own decision, after `step` steps."""
        self._append(outcome, step, reason)

    def _append(self, event: str, step: int, reason: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        one_line = " ".join(reason.split())
        row = (now, event, self._job, self._restart, self._ranks, step, one_line)
        fresh = not self.path.is_file() or self.path.stat().st_size == 0
        with open(self.path, "a") as stream:
            if fresh:
                stream.write("\t".join(COLUMNS) + "\n")
            stream.write("\t".join(map(str, row)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def read(path: Path) -> list[Attempt]:
    """The attempts in `path`, oldest first; none when there is no such file. A torn last line is passed over."""
    try:
        with open(path, newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        return []
    attempts: list[Attempt] = []
    for row in rows:
        if row["reason"] is None or not (row["step"] or "").isdigit():
            continue
        step, moment = int(row["step"]), seconds(row["time"])
        if row["event"] == "start":
            attempts.append(
                Attempt(
                    row["job"],
                    int(row["restart"]),
                    int(row["ranks"]),
                    moment,
                    step,
                    step=step,
                    resumed=row["reason"],
                )
            )
        elif row["event"] in ENDS and attempts:
            attempts[-1] = replace(
                attempts[-1], outcome=row["event"], ended=moment, step=step, reason=row["reason"]
            )
    return attempts


def newest_checkpoint(output_dir: Path) -> str:
    """Name of the checkpoint that a run would go on from; empty when it has none."""
    try:
        return (output_dir / "checkpoints" / "latest").read_text().strip()
    except FileNotFoundError:
        return ""


def seconds(text: str) -> float:
    """Unix time of a row's time."""
    return time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def decide(
    code: int,
    attempts: Sequence[Attempt],
    restart: int,
    *,
    by_file: bool = False,
    gained: bool | None = None,
) -> Decision:
    """Whether a job that has just ended with exit code `code` in its `restart`-th restart should be requeued.

    `attempts` are this job's, oldest first. `by_file`: a file-wise job, whose failed files fail again. `gained`:
    whether the last attempt saved anything that was not there before, if that is known.
    Whatever the history, no two attempts in a row fail without a step gained in between, so no job loops.
    """
    if code == 0:
        return Decision(False, "it is done", done=True)
    if code == 2:
        return Decision(False, "wrong usage or config; another try would end the same way")
    history = [_of_restart(attempts, number) for number in range(restart + 1)]
    last, before = history[-1], history[-2] if restart else None
    if last is not None and last.outcome == "done":
        return Decision(False, f"it is done, though it ended with exit code {code}", done=True)
    if last is not None and last.outcome == "failed" and by_file:
        return Decision(False, f"files failed and would fail again ({last.reason})")
    if not gained and _fruitless(history) >= FRUITLESS:
        return Decision(
            False, f"{FRUITLESS} attempts in a row gained no step; if they were stopped, ask for more time"
        )
    if last is None:
        return _never_began(code, before, restart)
    if last.outcome == "stopped":
        return Decision(True, f"stopped by {last.reason or 'request'} at step {last.step}; going on")
    if before is not None and not before.succeeded and _same_place(before, last, gained):
        told = f": {last.reason}" if last.reason else ""
        return Decision(
            False, f"two attempts in a row were lost at step {last.step} and nothing was gained{told}"
        )
    what = f"failed at step {last.step}" if last.outcome == "failed" else "killed"
    return Decision(True, f"{what}; trying once more from the last checkpoint or finished file")


def _of_restart(attempts: Sequence[Attempt], restart: int) -> Attempt | None:
    """The last attempt of that restart, None if it was lost before it could write a row."""
    return next((attempt for attempt in reversed(attempts) if attempt.restart == restart), None)


def _never_began(code: int, before: Attempt | None, restart: int) -> Decision:
    if code < 128 and code != 75:
        return Decision(False, f"it refused to begin (exit code {code}); its message is above")
    if code in STARTING:
        return Decision(True, "signalled while it was starting; going on")
    if restart and (before is None or not before.succeeded):
        return Decision(False, "two attempts in a row were lost, this one before it began")
    return Decision(True, "killed before it began; trying once more")


def _fruitless(history: Sequence[Attempt | None]) -> int:
    """How many of the last attempts in a row gained no step, however they ended."""
    count, place = 0, None
    for attempt in reversed(history):
        if attempt is not None:
            place = attempt.from_step if place is None else place
            if attempt.from_step != place or (attempt.outcome == "stopped" and attempt.step > place):
                break
        count += 1
    return count


def _same_place(before: Attempt, last: Attempt, gained: bool | None) -> bool:
    """Did two lost attempts come equally far: to the same failing step, or no further than to the same saved one?"""
    if before.outcome == last.outcome == "failed" and before.step == last.step:
        return True
    return before.from_step == last.from_step if gained is None else not gained
