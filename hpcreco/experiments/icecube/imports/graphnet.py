"""graphnet's sqlite files of IceCube events: a table of pulses and the table `truth`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.imports import sqlite
from hpcreco.experiments.icecube.imports.events import (
    Imported,
    ImportFileError,
    Options,
    RawEvent,
    dom_numbers,
    without_duplicates,
)
from hpcreco.experiments.icecube.pulses import Pulses

_PULSE = ("event_no", "string", "dom_number", "dom_time", "charge", "dom_x", "dom_y", "dom_z")
_IDS = ("event_no", "RunID", "EventID", "SubEventID")
#: the time of the vertex is not part of these files
_TRUTH = {
    "cascade_x": "position_x",
    "cascade_y": "position_y",
    "cascade_z": "position_z",
    "cascade_zenith": "zenith",
    "cascade_azimuth": "azimuth",
    "cascade_energy": "energy",
}
_TOLERANCE = 1.0  # m


def is_graphnet(tables: dict[str, list[str]]) -> bool:
    """Does a file with these tables come from graphnet's IceCube converter?"""
    return "truth" in tables and any(set(_PULSE) <= set(names) for names in tables.values())


def read(path: Path, detector: Detector, options: Options) -> Imported:
    """All events of `truth`. The pulses' positions must be those of the detector, to 1 m."""
    found = sqlite.tables(path)
    names = [name for name, columns in found.items() if set(_PULSE) <= set(columns)]
    name = options.pulses or (names[0] if len(names) == 1 else None)
    if name is None:
        raise ImportFileError(
            f"{path}: several tables of pulses: {', '.join(names)}; choose with --pulse-key"
        )
    rows = sqlite.columns(path, name, _PULSE)
    dom = dom_numbers(rows["string"], rows["dom_number"], detector, f"{path}: {name}")
    offset = np.stack([rows[f"dom_{axis}"] for axis in "xyz"], axis=1) - detector.flat_positions[dom]
    if len(offset) and np.abs(offset).max() > _TOLERANCE:
        raise ImportFileError(
            f"{path}: {name}: DOMs are up to {np.abs(offset).max():.1f} m away from where the detector has them; "
            "give the right --detector"
        )
    first, duplicates = without_duplicates(
        np.column_stack([rows["event_no"], dom, rows["dom_time"], rows["charge"]]), options.keep_duplicates
    )
    pulses = Pulses(rows["charge"], rows["dom_time"], dom)
    truth = sqlite.columns(path, "truth", (*_IDS, *_TRUTH.values()))
    events = []
    for row, number in enumerate(truth["event_no"]):
        ids = (int(truth["RunID"][row]), int(number), int(truth["SubEventID"][row]), 0)
        labels = {ours: float(truth[theirs][row]) for ours, theirs in _TRUTH.items()}
        events.append(RawEvent(ids, pulses[first & (rows["event_no"] == number)], labels=labels))
    return Imported("graphnet", events, detector, duplicates)
