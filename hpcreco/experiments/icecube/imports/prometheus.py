"""Prometheus' photons: parquet files of records, or graphnet's sqlite version of them (tables `total`, `mc_truth`).

Every photon is a pulse of 1 PE; the interaction happens at time 0. The parquet files say where a neutrino flies to, the
sqlite files where it comes from (both seen in the events themselves: light rings, and muons that enter the array from
their vertex).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.imports import sqlite
from hpcreco.experiments.icecube.imports.events import (
    Imported,
    ImportFileError,
    Options,
    RawEvent,
    dom_numbers,
)
from hpcreco.experiments.icecube.imports.geometry import STANDARD_NOISE
from hpcreco.experiments.icecube.pulses import Pulses

_TOLERANCE = 0.1  # m
_TOTAL = ("event_no", "sensor_string_id", "sensor_id", "sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t")
_INJECTION = {
    "cascade_x": "injection_position_x",
    "cascade_y": "injection_position_y",
    "cascade_z": "injection_position_z",
    "cascade_zenith": "injection_zenith",
    "cascade_azimuth": "injection_azimuth",
    "cascade_energy": "injection_energy",
}


class Photons(NamedTuple):
    """Photons of all events: event, string and sensor (P,) int64, position (P, 3) m, time (P,) ns."""

    event: np.ndarray
    string: np.ndarray
    sensor: np.ndarray
    position: np.ndarray
    time: np.ndarray


def is_prometheus(tables: Mapping[str, list[str]]) -> bool:
    """Does a sqlite file with these tables hold Prometheus events?"""
    return "mc_truth" in tables and set(_TOTAL) <= set(tables.get("total", ()))


def read_sqlite(path: Path, detector: Detector | None, options: Options) -> Imported:
    """All events of `mc_truth`; without a detector that of the sensors, if they are numbered regularly."""
    del options
    rows = sqlite.columns(path, "total", _TOTAL)
    position = np.stack([rows[f"sensor_pos_{axis}"] for axis in "xyz"], axis=1)
    photons = Photons(*(rows[name].astype(np.int64) for name in _TOTAL[:3]), position, rows["t"])
    truth = sqlite.columns(path, "mc_truth", ("event_no", *_INJECTION.values()))
    labels = {
        int(number): {ours: float(truth[theirs][row]) for ours, theirs in _INJECTION.items()}
        for row, number in enumerate(truth["event_no"])
    }
    return _assemble(path, photons, labels, detector)


def read_parquet(path: Path, detector: Detector | None, options: Options) -> Imported:
    """All events of a photon file."""
    del options
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path, columns=["photons", "mc_truth"]).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise ImportFileError(f"{path}: not a readable parquet file of photons ({error})") from error
    if not {"photons", "mc_truth"} <= set(records):
        raise ImportFileError(f"{path}: no records `photons` and `mc_truth`; it has {', '.join(records)}")
    counts = [len(event["t"]) for event in records["photons"]]

    def column(name: str) -> np.ndarray:
        return np.concatenate(
            [np.zeros(0), *(np.asarray(event[name], float) for event in records["photons"])]
        )

    photons = Photons(
        np.repeat(np.arange(len(counts)), counts),
        column("string_id").astype(np.int64),
        column("sensor_id").astype(np.int64),
        np.stack([column(f"sensor_pos_{axis}") for axis in "xyz"], axis=1),
        column("t"),
    )
    return _assemble(path, photons, {i: _heading(t) for i, t in enumerate(records["mc_truth"])}, detector)


def _heading(truth: Mapping[str, float]) -> dict[str, float]:
    """Labels of a record that says where the neutrino flies to."""
    place = {f"cascade_{axis}": truth[f"initial_state_{axis}"] for axis in "xyz"}
    return place | {
        "cascade_zenith": np.pi - truth["initial_state_zenith"],
        "cascade_azimuth": (truth["initial_state_azimuth"] + np.pi) % (2 * np.pi),
        "cascade_energy": truth["initial_state_energy"],
    }


def _assemble(
    path: Path, photons: Photons, labels: Mapping[int, dict[str, float]], detector: Detector | None
) -> Imported:
    if detector is None:
        detector, dom = regular(path, photons)
    else:
        dom = _numbers(path, photons, detector)
    shift = np.zeros(3)
    if len(dom):
        shift = np.median(detector.flat_positions[dom] - photons.position, axis=0)
        off = np.abs(photons.position + shift - detector.flat_positions[dom]).max()
        if off > _TOLERANCE:
            raise ImportFileError(
                f"{path}: sensors are up to {off:.1f} m away from the detector's, however they are moved as a whole; "
                "give the right --detector, or none if they are numbered regularly"
            )
    pulses = Pulses(np.ones(len(dom)), photons.time, dom)
    events = []
    for number, truth in labels.items():
        moved = {f"cascade_{axis}": truth[f"cascade_{axis}"] + shift[i] for i, axis in enumerate("xyz")}
        ids = (0, number, 0, 0)
        events.append(
            RawEvent(ids, pulses[photons.event == number], labels={**truth, **moved, "cascade_time": 0.0})
        )
    return Imported("prometheus", events, detector)


def _numbers(path: Path, photons: Photons, detector: Detector) -> np.ndarray:
    """Flat DOM numbers of sensors whose strings and sensors count from 1, as in a geometry file."""
    return dom_numbers(photons.string, photons.sensor, detector, str(path))


def regular(path: Path, photons: Photons) -> tuple[Detector, np.ndarray]:
    """The array that the sensors belong to, where these are numbered through and equidistant on their strings.

    With D sensors on every string z = z₀ + Δz (sensor − D · string): D and Δz come from a least-squares fit, so sensors
    that never saw a photon are part of the array too. Returns the detector and the DOM (P,) of every photon. Raises
    ImportFileError when the sensors do not fit within 0.1 m.
    """
    unique, which = np.unique(np.stack([photons.string, photons.sensor], axis=1), axis=0, return_inverse=True)
    position = np.empty((len(unique), 3))
    position[which.reshape(-1)] = photons.position
    string, sensor = unique.T.astype(float)
    problem = f"{path}: the sensors are not numbered regularly; give their geometry with --detector FILE.geo"
    if len(unique) < 4 or string.min() < 0:
        raise ImportFileError(problem)
    design = np.stack([np.ones(len(unique)), sensor, string], axis=1)
    (z0, step, per_string), *_ = np.linalg.lstsq(design, position[:, 2], rcond=None)
    doms = round(-per_string / step) if abs(step) > 1e-6 else 0
    place = unique[:, 1] - doms * unique[:, 0]
    off = np.abs(z0 + step * place - position[:, 2]).max()
    n_strings = int(unique[:, 0].max()) + 1
    if doms < 1 or off > _TOLERANCE or place.min() < 0 or place.max() >= doms:
        raise ImportFileError(problem)
    if len(np.unique(unique[:, 0])) < n_strings:
        raise ImportFileError(
            f"{path}: no photon on some of the {n_strings} strings; give the geometry with --detector FILE.geo"
        )
    xy = np.array([position[unique[:, 0] == s, :2].mean(axis=0) for s in range(n_strings)])
    z = z0 + step * np.arange(doms)
    grid = np.concatenate(
        [np.repeat(xy[:, None], doms, axis=1), np.broadcast_to(z[None, :, None], (n_strings, doms, 1))],
        axis=2,
    )
    shape = (n_strings, doms)
    array = Detector(
        grid,
        np.ones(shape),
        np.full(shape, STANDARD_NOISE),
        np.zeros(shape, bool),
        name=f"sensors of {path.name}",
    )
    return array, (photons.string * doms + photons.sensor - doms * photons.string).astype(np.int32)
