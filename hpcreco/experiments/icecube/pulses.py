"""The pulses shard: what every DOM recorded of an event, when it was blind, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcreco.shards import Attribute, Field, Schema, Table

CASCADE = ("x", "y", "z", "zenith", "azimuth", "energy", "time")  # m, rad, GeV, ns
IDS = ("run", "event", "sub_event", "stream")

PULSES = Schema(
    format="hpcreco/icecube/pulses",
    version=1,
    tables=(
        Table(
            "pulses",  # sorted by DOM, then time
            (
                Field("charge", "float32", unit="PE"),
                Field("time", "float32", unit="ns"),
                Field("dom", "int32"),  # string * doms_per_string + dom
                Field("number", "int32"),  # 0 for a DOM's first pulse
                Field("quantile", "float32", optional=True),  # of the DOM's charge, in (0, 1]
            ),
        ),
        Table(
            "gaps",  # dead time of single DOMs, [start, stop), disjoint, sorted by DOM and start
            (
                Field("start", "float32", unit="ns"),
                Field("stop", "float32", unit="ns"),
                Field("dom", "int32"),
            ),
        ),
        Table("excluded", (Field("dom", "int32"),)),  # DOMs not to be used at all, ascending
        Table(
            "event",
            (
                Field(
                    "parameters", "float32", (), optional=True
                ),  # the hypothesis, columns named by the writer
                Field("window", "float32", ("start", "stop"), unit="ns"),  # readout
                Field("weight", "float32"),
                Field("ids", "int64", IDS),
            ),
            ragged=False,
        ),
        # start values for fits, columns "<seed>/<parameter>"; NaN where a seed does not exist
        Table("seeds", (Field("values", "float32", (), finite=False),), ragged=False, optional=True),
        Table("cascades", (Field("parameters", "float32", CASCADE),), optional=True),  # true sources of light
    ),
    attributes=(
        Attribute("detector_sha256", "str"),
        Attribute("detector_shape", "ints"),
        Attribute("detector", "str", volatile=True),  # its name
        Attribute("generator", "json"),  # settings of the simulation; {"import": kind} of what was converted
        Attribute("seed", "int", required=False),
        Attribute("merged_doms", "int", required=False),  # DOMs whose photons were grouped into fewer pulses
        Attribute("removed_pulses", "int", required=False),  # they lay in gaps, outside the window, ...
        Attribute("duplicate_rows", "int", required=False),  # of the converted file, dropped
        Attribute("fingerprint", "str", required=False, volatile=True),  # what decides whether it is stale
        Attribute("source_files", "strs", required=False, volatile=True),
    ),
)


@dataclass(frozen=True)
class Pulses:
    """P pulses: charge (P,) PE, time (P,) ns, dom (P,) int32."""

    charge: np.ndarray
    time: np.ndarray
    dom: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: np.ndarray | slice) -> Pulses:
        return Pulses(self.charge[rows], self.time[rows], self.dom[rows])

    def sorted(self) -> Pulses:
        """By DOM, then time, as float32."""
        time = self.time.astype(np.float32)
        return Pulses(self.charge.astype(np.float32), time, self.dom.astype(np.int32))[
            np.lexsort((time, self.dom))
        ]


@dataclass(frozen=True)
class Gaps:
    """W dead times: start, stop (W,) ns, dom (W,) int32; a gap is [start, stop)."""

    start: np.ndarray
    stop: np.ndarray
    dom: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def none(cls) -> Gaps:
        return cls(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class EventRecord:
    """One event, ready to be written: `pulses` sorted, outside all `gaps` and inside `window`."""

    pulses: Pulses
    gaps: Gaps
    excluded: np.ndarray
    window: tuple[float, float]
    ids: tuple[int, int, int, int]
    parameters: np.ndarray | None = None
    weight: float = 1.0
    seeds: np.ndarray | None = None
    cascades: np.ndarray | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)  # summed over events for the file's attributes

    def tables(self) -> dict[str, dict[str, Any]]:
        """The rows of every table, for `ShardWriter.append`."""
        event = {"window": np.asarray(self.window), "weight": self.weight, "ids": np.asarray(self.ids)}
        tables: dict[str, dict[str, Any]] = {
            "pulses": {
                "charge": self.pulses.charge,
                "time": self.pulses.time,
                "dom": self.pulses.dom,
                "number": numbers(self.pulses.dom),
            },
            "gaps": {"start": self.gaps.start, "stop": self.gaps.stop, "dom": self.gaps.dom},
            "excluded": {"dom": np.asarray(self.excluded, np.int32)},
            "event": event,
        }
        if self.parameters is not None:
            event["parameters"] = self.parameters
        if self.seeds is not None:
            tables["seeds"] = {"values": self.seeds}
        if self.cascades is not None:
            tables["cascades"] = {"parameters": self.cascades}
        return tables


def numbers(dom: np.ndarray) -> np.ndarray:
    """(P,) int32: how many rows with the same DOM stand before each; dom (P,) is sorted."""
    first = np.concatenate([[True], dom[1:] != dom[:-1]]) if len(dom) else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    return (np.arange(len(dom)) - np.repeat(starts, np.diff([*starts, len(dom)]))).astype(np.int32)


def quantiles(charge: np.ndarray, dom: np.ndarray) -> np.ndarray:
    """(P,) float32 in (0, 1]: the fraction of its DOM's charge that has come with each pulse; dom (P,) sorted."""
    total = np.cumsum(charge, dtype=np.float64)
    number = numbers(dom)
    starts = np.flatnonzero(number == 0)
    counts = np.diff([*starts, len(dom)])
    before = np.repeat((total - charge)[starts], counts)
    whole = np.repeat(total[starts + counts - 1], counts) - before
    return np.clip((total - before) / np.where(whole > 0, whole, 1.0), 0.0, 1.0).astype(np.float32)


def merged(gaps: Gaps, window: tuple[float, float]) -> Gaps:
    """The same dead time as disjoint gaps inside `window`, sorted by DOM and start, in float32."""
    start = np.clip(gaps.start, *window).astype(np.float32)
    stop = np.clip(gaps.stop, *window).astype(np.float32)
    keep = start < stop
    dom, start, stop = gaps.dom[keep].astype(np.int32), start[keep], stop[keep]
    order = np.lexsort((start, dom))
    rows: list[list[float]] = []
    for d, lo, hi in zip(dom[order].tolist(), start[order].tolist(), stop[order].tolist(), strict=True):
        if rows and rows[-1][2] == d and lo <= rows[-1][1]:
            rows[-1][1] = max(rows[-1][1], hi)
        else:
            rows.append([lo, hi, d])
    table = np.array(rows, np.float64).reshape(-1, 3)
    return Gaps(table[:, 0].astype(np.float32), table[:, 1].astype(np.float32), table[:, 2].astype(np.int32))


def in_gap(time: np.ndarray, dom: np.ndarray, gaps: Gaps) -> np.ndarray:
    """(P,) bool: does a gap of its DOM hold each pulse? `gaps` disjoint and sorted by DOM and start."""
    if not len(gaps):
        return np.zeros(len(time), bool)
    # rank every pulse among the gaps' starts in (DOM, time) order; a gap before an equal time
    doms = np.concatenate([gaps.dom, dom])
    times = np.concatenate([gaps.start, time])
    is_pulse = np.repeat([False, True], [len(gaps), len(time)])
    order = np.lexsort((is_pulse, times, doms))
    latest = np.cumsum(~is_pulse[order]) - 1
    found = np.empty(len(order), np.int64)
    found[order] = latest
    candidate = found[len(gaps) :]
    held = candidate >= 0
    candidate = np.maximum(candidate, 0)
    return held & (gaps.dom[candidate] == dom) & (time < gaps.stop[candidate])


def bright_doms(pulses: Pulses, n_doms: int, fraction: float = 0.4, at_least: float = 100.0) -> np.ndarray:
    """DOMs with more than `fraction` of the event's charge and more than `at_least` PE, ascending."""
    charge = np.bincount(pulses.dom, weights=pulses.charge, minlength=n_doms)
    return np.flatnonzero((charge > fraction * charge.sum()) & (charge > at_least)).astype(np.int32)
