"""What every importer gives: events in our units and numbering, and what was dropped on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.pulses import Gaps, Pulses

Ids = tuple[int, int, int, int]  # run, event, sub_event, stream


class ImportFileError(ValueError):
    """A file of another program that cannot be read as the options say; names file, table and column."""

    exit_code = 2


@dataclass(frozen=True)
class Options:
    """What to take from a file of several tables; None: what the names and columns suggest, "" : nothing."""

    pulses: str | None = None
    labels: str | None = None
    seeds: tuple[str, ...] | None = None
    excluded: tuple[str, ...] | None = None
    gaps: str | None = None
    keep_duplicates: bool = False


@dataclass(frozen=True)
class RawEvent:
    """One event as it stands in the file; pulses unsorted, gaps maybe overlapping."""

    ids: Ids
    pulses: Pulses
    gaps: Gaps = field(default_factory=Gaps.none)
    excluded: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    labels: Mapping[str, float] = field(default_factory=dict)
    seeds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """All events of a file, the detector they were seen with, and rows that were there twice."""

    kind: str
    events: Sequence[RawEvent]
    detector: Detector
    duplicates: int = 0
    unlabelled: int = 0  # events without truth in a file that has truth; dropped


def dom_numbers(string: np.ndarray, om: np.ndarray, detector: Detector, where: str) -> np.ndarray:
    """Flat numbers of DOMs counted from 1; raises ImportFileError for one that the detector does not have."""
    string, om = np.asarray(string, np.int64), np.asarray(om, np.int64)
    outside = (string < 1) | (string > detector.n_strings) | (om < 1) | (om > detector.doms_per_string)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise ImportFileError(
            f"{where}: string {string[first]}, om {om[first]} is not in the detector of {detector.n_strings} x "
            f"{detector.doms_per_string} DOMs ({int(outside.sum())} such rows); give the right --detector"
        )
    return ((string - 1) * detector.doms_per_string + om - 1).astype(np.int32)


def without_duplicates(rows: np.ndarray, keep: bool) -> tuple[np.ndarray, int]:
    """(n,) mask of the first of equal rows (n, k), and how many others there are; all stay where `keep`."""
    _, first = np.unique(rows, axis=0, return_index=True)
    mask = np.zeros(len(rows), bool)
    mask[first] = True
    repeated = int((~mask).sum())
    return (np.ones(len(rows), bool) if keep else mask), repeated


def label_name(column: str) -> str:
    """Our name of a true parameter: `cascade_t` is the time, further cascades belong to the source `cascade`."""
    if column == "cascade_t":
        return "cascade_time"
    head, _, rest = column.partition("_")
    if head == "cascade" and rest[:5].isdecimal():
        return f"cascade_{column}"
    return column
