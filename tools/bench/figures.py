"""What a benchmark claims: ratios between peers of one run, their spread over its rounds, the bar to reach."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COLUMNS = ("figure", "median", "quartile_1", "quartile_3", "rounds", "better", "bar")


@dataclass(frozen=True)
class Figure:
    """One ratio, measured once per round.

    name: what is divided by what, as in "UResNet training step: MinkowskiEngine / native". values: one per round.
    better: "higher" or "lower". bar: what it has to reach, None where nothing was promised.
    """

    name: str
    values: Sequence[float]
    better: str = "higher"
    bar: float | None = None


@dataclass(frozen=True)
class Row:
    """A figure as the table holds it."""

    figure: str
    median: float
    quartile_1: float
    quartile_3: float
    rounds: int
    better: str
    bar: float | None

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the bar; None without one."""
        if self.bar is None:
            return None
        return self.median >= self.bar if self.better == "higher" else self.median <= self.bar


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def summary(figure: Figure) -> Row:
    """Median and quartiles of a figure."""
    low, median, high = (float(f"{v:.4g}") for v in np.percentile(figure.values, [25, 50, 75]))
    return Row(figure.name, median, low, high, len(figure.values), figure.better, figure.bar)


def write(figures: Iterable[Figure], path: Path) -> list[Row]:
    """The table of `figures` as CSV; also on the screen, a line each."""
    rows = [summary(figure) for figure in figures]
    write_rows(rows, path)
    for row in rows:
        bar = "" if row.bar is None else f", bar {row.bar:g}: {'reached' if row.reached else 'NOT reached'}"
        print(f"{row.figure}: {row.median:g} ({row.quartile_1:g} to {row.quartile_3:g}{bar})", flush=True)
    return rows


def write_table(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """A benchmark's own table as CSV, also on the screen; columns as in the first row."""
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(path.read_text(), end="")


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """The rows as CSV."""
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(fields(row) for row in rows)


def read(path: Path) -> list[Row]:
    """The inverse of `write_rows`."""
    with path.open(newline="") as stream:
        return [parsed(row) for row in csv.DictReader(stream)]


def fields(row: Row) -> list[object]:
    """What a CSV holds of a row, in the order of COLUMNS."""
    values = [getattr(row, name) for name in COLUMNS]
    return ["" if value is None else value for value in values]


def parsed(text: Mapping[str, str]) -> Row:
    """The inverse of `fields`, by name."""
    low, high = float(text["quartile_1"]), float(text["quartile_3"])
    bar = float(text["bar"]) if text["bar"] else None
    return Row(text["figure"], float(text["median"]), low, high, int(text["rounds"]), text["better"], bar)
