"""How fast a run trains and when it will be over, from its summaries alone."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: epochs that the pace is averaged over; the first of a run compile kernels and fill caches
RECENT = 3


@dataclass(frozen=True)
class Pace:
    """Means over the last few epochs. Validation counts to an epoch, not to a step."""

    step_seconds: float
    epoch_seconds: float
    events_per_second: float
    steps_per_epoch: float


def rows_of(output_dir: Path) -> list[dict[str, str]]:
    """The rows of a run's summaries as text, oldest first; none before the first epoch is over."""
    try:
        with open(output_dir / "summaries.csv", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    except FileNotFoundError:
        return []
    return [row for row in rows if None not in row.values()]


def pace_of(output_dir: Path) -> Pace | None:
    """The pace of the run in `output_dir`; None before its first epoch is over."""
    return pace(rows_of(output_dir))


def pace(rows: list[dict[str, str]]) -> Pace | None:
    """The pace of the last `RECENT` rows; None without rows or without steps in them."""
    recent = rows[-RECENT:]
    steps, events = _sum(recent, "steps"), _sum(recent, "events")
    training, validating = _sum(recent, "train_time"), _sum(recent, "valid_time")
    if not recent or steps == 0 or training == 0:
        return None
    return Pace(
        training / steps, (training + validating) / len(recent), events / training, steps / len(recent)
    )


def seconds_left(pace: Pace, run: dict[str, Any], epochs_done: int, steps_done: int) -> float | None:
    """Seconds of training until `run` (a typed config) is over; None for a run that ends by itself some day.

    Iterations count with their share of validations: an epoch's time is spread over its steps.
    """
    if run.get("iterations") is not None:
        left = max(0, int(run["iterations"]) - steps_done)
        return left * pace.epoch_seconds / pace.steps_per_epoch
    if run.get("epochs") is not None:
        return max(0, int(run["epochs"]) - epochs_done) * pace.epoch_seconds
    return None


def _sum(rows: list[dict[str, str]], column: str) -> float:
    return sum(float(row.get(column) or 0) for row in rows)
