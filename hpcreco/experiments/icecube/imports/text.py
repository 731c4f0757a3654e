"""Real events as text: a line per pulse with time [ns], charge [PE], om, string and an undocumented fifth number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.imports.events import (
    Imported,
    ImportFileError,
    Options,
    RawEvent,
    dom_numbers,
    without_duplicates,
)
from hpcreco.experiments.icecube.pulses import Pulses


def read(path: Path, detector: Detector, options: Options) -> Imported:
    """The one event of a file. Rows that occur twice are counted, and dropped unless the options keep them."""
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ImportFileError(f"{path}: not a table of numbers separated by commas ({error})") from error
    if rows.shape[1] < 4 or not len(rows):
        raise ImportFileError(
            f"{path}: expected lines of time, charge, om, string; it has {rows.shape[1]} columns"
        )
    first, duplicates = without_duplicates(rows, options.keep_duplicates)
    rows = rows[first]
    dom = dom_numbers(rows[:, 3], rows[:, 2], detector, str(path))
    event = RawEvent((0, 0, 0, 0), Pulses(rows[:, 1], rows[:, 0], dom))
    return Imported("text", [event], detector, duplicates)
