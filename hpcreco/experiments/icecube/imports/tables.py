"""The original package's HDF5 files: compound tables with a row per pulse, keyed by run, event, sub-event and stream.

DOMs are counted from 1. In a table of time windows `time` is a window's start and `width` its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.imports.events import (
    Ids,
    Imported,
    ImportFileError,
    Options,
    RawEvent,
    dom_numbers,
    label_name,
    without_duplicates,
)
from hpcreco.experiments.icecube.pulses import CASCADE, Gaps, Pulses

_KEYS = ("Run", "Event", "SubEvent", "SubEventStream")
_BOOKKEEPING = {*_KEYS, "exists", "vector_index"}
_PULSE = {"string", "om", "time", "charge"}
_WINDOW = {"string", "om", "time", "width"}
_LABEL = {"cascade_x", "cascade_y", "cascade_z", "cascade_zenith", "cascade_azimuth", "cascade_energy"}


def read(path: Path, detector: Detector, options: Options) -> Imported:
    """All events of the labels' table, or without one of the pulses'. Raises ImportFileError."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            tables = {
                name: dataset[()]
                for name, dataset in file.items()
                if isinstance(dataset, h5py.Dataset) and dataset.dtype.names
            }
    except OSError as error:
        raise ImportFileError(f"{path}: not a readable HDF5 file ({error})") from error
    chosen = choose({name: set(table.dtype.names) for name, table in tables.items()}, options, path)
    present = {name: table[_exists(table)] for name, table in tables.items()}
    return _assemble(path, present, chosen, detector, options.keep_duplicates)


def choose(columns: Mapping[str, set[str]], options: Options, path: Path) -> Options:
    """Which tables to take, where the options leave it open. Raises ImportFileError when that is not clear."""
    keyed = {name: names for name, names in columns.items() if set(_KEYS) <= names}
    is_window = {n for n, names in keyed.items() if names >= _WINDOW and "window" in n.lower()}
    pulses = sorted(n for n, names in keyed.items() if names >= _PULSE and n not in is_window)
    labels = sorted(n for n, names in keyed.items() if names >= _LABEL)
    seeds = sorted(n for n, names in keyed.items() if names >= set(CASCADE))
    doms = sorted(
        n for n, names in keyed.items() if {"string", "om"} <= names and not names & {"time", "charge"}
    )
    asked = [options.pulses, options.labels, *(options.seeds or ()), *(options.excluded or ()), options.gaps]
    for name in asked:
        if name and name not in keyed:
            raise ImportFileError(
                f"{path}: no table {name!r} with the columns {', '.join(_KEYS)}; "
                f"it has {', '.join(sorted(keyed)) or 'none'}"
            )
    return Options(
        pulses=_one(options.pulses, pulses, path, "pulses", "--pulse-key", required=True),
        labels=_one(options.labels, labels, path, "labels", "--label-key"),
        seeds=tuple(seeds) if options.seeds is None else options.seeds,
        excluded=tuple(doms) if options.excluded is None else options.excluded,
        gaps=_one(options.gaps, sorted(is_window), path, "time windows", "--gap-key"),
    )


def _one(
    asked: str | None, found: list[str], path: Path, what: str, flag: str, required: bool = False
) -> str | None:
    if asked is not None:
        return asked or None
    if len(found) > 1:
        raise ImportFileError(f"{path}: several tables of {what}: {', '.join(found)}; choose with {flag}")
    if not found and required:
        raise ImportFileError(
            f"{path}: no table of {what} (columns {', '.join(sorted(_PULSE))}); give {flag}"
        )
    return found[0] if found else None


def _exists(table: np.ndarray) -> np.ndarray:
    if "exists" in table.dtype.names:
        return table["exists"] != 0
    return np.ones(len(table), bool)


def _ids(table: np.ndarray) -> list[Ids]:
    return list(zip(*(table[key].tolist() for key in _KEYS), strict=True))


def _assemble(
    path: Path, tables: Mapping[str, np.ndarray], chosen: Options, detector: Detector, keep: bool
) -> Imported:
    assert chosen.pulses is not None  # `choose` has found one
    table = tables[chosen.pulses]
    dom = dom_numbers(table["string"], table["om"], detector, f"{path}: {chosen.pulses}")
    ids = _ids(table)
    rows = np.column_stack([np.array(ids, np.float64).reshape(-1, 4), dom, table["time"], table["charge"]])
    first, duplicates = without_duplicates(rows, keep)
    pulses = Pulses(table["charge"], table["time"], dom)
    where = _rows_by_event(ids, np.flatnonzero(first))
    events = list(where)
    labels: dict[Ids, dict[str, float]] = {}
    if chosen.labels:
        labels = {key: _labels(row) for key, row in _records(tables[chosen.labels])}
        events = list(labels)
    seeds = {name: dict(_records(tables[name])) for name in chosen.seeds or ()}
    gaps = _gaps(path, tables, chosen.gaps, detector)
    excluded = [_doms(path, tables, name, detector) for name in chosen.excluded or ()]
    nothing = np.zeros(0, np.int64)
    found = [
        RawEvent(
            ids=key,
            pulses=pulses[where.get(key, nothing)],
            gaps=gaps.get(key, Gaps.none()),
            excluded=np.unique(
                np.concatenate([np.zeros(0, np.int32), *(d.get(key, nothing) for d in excluded)])
            ),
            labels=labels.get(key, {}),
            seeds={name: _seed(by_id.get(key)) for name, by_id in seeds.items()},
        )
        for key in events
    ]
    return Imported("tables", found, detector, duplicates, len(set(where) - set(events)))


def _rows_by_event(ids: Iterable[Ids], rows: np.ndarray) -> dict[Ids, np.ndarray]:
    collected: dict[Ids, list[int]] = {}
    listed = list(ids)
    for row in rows.tolist():
        collected.setdefault(listed[row], []).append(row)
    return {key: np.array(numbers) for key, numbers in collected.items()}


def _records(table: np.ndarray) -> list[tuple[Ids, dict[str, Any]]]:
    names = [n for n in table.dtype.names if n not in _BOOKKEEPING]
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    return [(key, dict(zip(names, row, strict=True))) for key, row in zip(_ids(table), rows, strict=True)]


def _labels(record: Mapping[str, Any]) -> dict[str, float]:
    """The true parameters, a cascade's seven first, then the others by name."""
    named = {label_name(column): value for column, value in record.items() if isinstance(value, float)}
    first = [f"cascade_{name}" for name in CASCADE if f"cascade_{name}" in named]
    return {name: named[name] for name in (*first, *sorted(set(named) - set(first)))}


def _seed(record: Mapping[str, Any] | None) -> dict[str, float]:
    return {name: float("nan") if record is None else float(record[name]) for name in CASCADE}


def _gaps(
    path: Path, tables: Mapping[str, np.ndarray], name: str | None, detector: Detector
) -> dict[Ids, Gaps]:
    if not name:
        return {}
    table = tables[name]
    dom = dom_numbers(table["string"], table["om"], detector, f"{path}: {name}")
    if (table["width"] < table["time"]).any():
        raise ImportFileError(
            f"{path}: {name}: windows end before they start; `width` should hold the end of a window, not its length"
        )
    by_event = _rows_by_event(_ids(table), np.arange(len(table)))
    return {key: Gaps(table["time"][r], table["width"][r], dom[r]) for key, r in by_event.items()}


def _doms(
    path: Path, tables: Mapping[str, np.ndarray], name: str, detector: Detector
) -> dict[Ids, np.ndarray]:
    table = tables[name]
    dom = dom_numbers(table["string"], table["om"], detector, f"{path}: {name}")
    return {key: dom[rows] for key, rows in _rows_by_event(_ids(table), np.arange(len(table))).items()}
