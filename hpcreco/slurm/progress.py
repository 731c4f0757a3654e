"""How a run is doing, gathered from its folder and from Slurm where there is one."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpcreco import attempts, config
from hpcreco.slurm import queue
from hpcreco.slurm.pace import Pace, pace, rows_of, seconds_left
from hpcreco.train.lock import STALE

_TAIL = 64 * 1024  # bytes of a log that are looked through
_ERROR = re.compile(
    r"(?i:\berror\b)|^[\w.]+(Error|Exception)\b|^Killed|Bus error|Segmentation fault|(?i:out of memory|oom.kill)"
)
#: what a run's folder has from the moment it was submitted or begun
_SIGNS = ("jobs.csv", "attempts.csv", "summaries.csv", "train.log", "configs", "checkpoints", ".lock")
#: what srun and slurmstepd say of any job that ended with a code: its cause is elsewhere
_NOT_A_CAUSE = re.compile(
    r"srun: (error: \S+: tasks? .*|launch/slurm|Force Terminated)"
    r"|DUE TO (JOB REQUEUE|PREEMPTION)|STEP \S+ ON \S+ CANCELLED"
)


class StatusError(ValueError):
    """There is no such run."""

    exit_code = 2


@dataclass(frozen=True)
class Progress:
    """A run's progress. `state`: not started, queued, training, stopped, failed, lost or done."""

    run: str
    state: str
    job: queue.JobState
    attempts: list[attempts.Attempt]
    epoch: int | None = None  # the last that is over
    epochs: int | None = None
    step: int = 0
    iterations: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    pace: Pace | None = None
    seconds_left: float | None = None
    expected_end: float | None = None
    error: str = ""
    log: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, under the same names."""
        return asdict(self)


def find_run(name: str) -> Path:
    """The folder of a run, given itself or the config (file or shipped name) whose output_dir it is."""
    path = Path(name)
    if path.is_dir():
        if not any((path / sign).exists() for sign in _SIGNS):
            raise StatusError(
                f"no training has begun in {path}, and none was submitted to it; name a run's output_dir"
            )
        return path
    try:
        return Path(config.load(name)["output_dir"])
    except KeyError:
        raise StatusError(f"{name} has no output_dir") from None
    except config.ConfigError as error:
        raise StatusError(f"{name} is neither the folder of a run nor a config: {error}") from error


def look(
    folder: Path, ask: Callable[[str], queue.JobState] = queue.ask, now: Callable[[], float] = time.time
) -> Progress:
    """The progress of the run in `folder`, which need not exist yet."""
    tried = attempts.read(folder / "attempts.csv")
    sent = _sent(folder)
    number, log = _latest_job(tried, sent)
    job = ask(number)
    log = job.log or log
    rows, settings = rows_of(folder), _settings(folder)
    last = rows[-1] if rows else None
    speed = pace(rows)
    steps = int(sum(float(row.get("steps") or 0) for row in rows))
    state = _state(folder, job, tried, now())
    epoch = int(last["epoch"]) if last else None
    over = 0 if epoch is None else epoch + 1
    left = seconds_left(speed, settings, over, steps) if speed and state != "done" else None
    since_row = now() - (folder / "summaries.csv").stat().st_mtime if last else 0.0
    end = now() + max(0.0, left - since_row) if left is not None and state == "training" else None
    return Progress(
        str(folder),
        state,
        job,
        tried,
        epoch,
        settings.get("epochs"),
        max([steps, *(attempt.step for attempt in tried[-1:])]),
        settings.get("iterations"),
        _metrics(last),
        speed,
        left,
        end,
        "" if state == "done" else _last_error([Path(log)] if log else [], folder / "train.log"),
        log,
    )


def _sent(folder: Path) -> list[dict[str, str]]:
    try:
        with open(folder / "jobs.csv", newline="") as stream:
            return [row for row in csv.DictReader(stream, delimiter="\t") if row["verb"] == "train"]
    except FileNotFoundError:
        return []


def _latest_job(tried: list[attempts.Attempt], sent: list[dict[str, str]]) -> tuple[str, str]:
    """Number and log of the job that was sent last, or that trained last if it was sent by other means."""
    logs = {row["job"]: row["log"] for row in sent}
    trained = tried[-1].job if tried else ""
    if sent and (not tried or attempts.seconds(sent[-1]["time"]) >= tried[-1].started):
        return sent[-1]["job"], sent[-1]["log"]
    return trained, logs.get(trained, "")


def _state(folder: Path, job: queue.JobState, tried: list[attempts.Attempt], now: float) -> str:
    last = tried[-1] if tried else None
    if job.state == "RUNNING" or (job.state == "unknown" and _heart_beats(folder, now)):
        return "training"
    if job.active:
        return "queued"
    if last is None:
        return "failed" if job.failed else "not started"
    return "lost" if last.outcome == "killed" else last.outcome


def _heart_beats(folder: Path, now: float) -> bool:
    """Does a run hold its lock just now?"""
    try:
        return now - (folder / ".lock").stat().st_mtime < STALE
    except OSError:
        return False


def _settings(folder: Path) -> dict[str, Any]:
    """The typed config of the run's last start."""
    kept = [path for path in (folder / "configs").glob("*.yaml") if path.stem.isdigit()]
    if not kept:
        return {}
    return dict(yaml.safe_load(max(kept, key=lambda path: int(path.stem)).read_text()) or {})


def _metrics(row: dict[str, str] | None) -> dict[str, float]:
    """Losses and metrics of an epoch; its times are in the pace."""
    from hpcreco.train.summary import TIMING

    chosen = {}
    for name, text in (row or {}).items():
        if name.startswith(("train_", "valid_")) and name not in TIMING and text != "nan":
            chosen[name] = float(text)
    return chosen


def _last_error(job_logs: list[Path], train_log: Path) -> str:
    """The last line of a log that speaks of an error, with its file; the job's log knows more than the run's."""
    for path in [*job_logs, train_log]:
        for line in reversed(_tail(path)):
            if _ERROR.search(line) and not _NOT_A_CAUSE.search(line):
                return f"{line.strip()} ({path.name})"
    return ""


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL))
            return stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []
