"""What `hpcreco validate` checks of a pulses shard beyond its schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpcreco.experiments.icecube import detector
from hpcreco.experiments.icecube.pulses import Gaps, in_gap, numbers, quantiles
from hpcreco.shards import Shard, ShardError

_QUANTILE_TOLERANCE = 1e-4


def problems(path: Path) -> list[str]:
    """Everything that is wrong with a shard that its schema allows, each naming the field and the first event."""
    with Shard(path) as shard:
        return [f"{path}: {problem}" for problem in (*_array(shard), *_events(shard), *_rows(shard))]


def detector_problems(path: Path) -> list[str]:
    """What is wrong with the artefact of a detector."""
    try:
        detector.read(path)
    except detector.DetectorError as error:
        return [str(error)]
    return []


def _array(shard: Shard) -> Iterator[str]:
    try:
        found = detector.beside(shard.path, shard.attributes["detector_sha256"])
    except (detector.DetectorError, ShardError) as error:
        yield str(error)
        return
    if list(found.shape) != list(shard.attributes["detector_shape"]):
        yield f"attribute detector_shape is {shard.attributes['detector_shape']}, the detector has {list(found.shape)}"


def _events(shard: Shard) -> Iterator[str]:
    event = shard.read_events(0, shard.n_events, "event")
    if len(np.unique(event["ids"], axis=0)) < len(event["ids"]):
        yield "event/ids: two events have the same run, event, sub-event and stream"
    wrong = np.flatnonzero(event["window"][:, 0] >= event["window"][:, 1])
    if len(wrong):
        yield f"event/window does not start before it stops in event {wrong[0]} ({len(wrong)} such events)"


def _rows(shard: Shard) -> Iterator[str]:
    """Rows of pulses, gaps and excluded, all events at once; DOMs are numbered through all events meanwhile."""
    n_doms = int(np.prod(shard.attributes["detector_shape"]))
    window = shard.read_events(0, shard.n_events, "event", ("window",))["window"]
    tables, slots = {}, {}
    for table in ("pulses", "gaps", "excluded"):
        tables[table] = shard.read_events(0, shard.n_events, table)
        slots[table] = np.repeat(np.arange(shard.n_events), shard.rows(table))
        dom = tables[table]["dom"]
        yield from _first(f"{table}/dom is not in 0..{n_doms - 1}", (dom < 0) | (dom >= n_doms), slots[table])
    pulses, gaps, excluded = tables["pulses"], tables["gaps"], tables["excluded"]
    place = {table: slots[table] * n_doms + tables[table]["dom"] for table in tables}

    yield from _first(
        "pulses are not sorted by DOM and time", _falls(place["pulses"], pulses["time"]), slots["pulses"]
    )
    yield from _first("pulses/charge is not above 0", pulses["charge"] <= 0, slots["pulses"])
    edges = window[slots["pulses"]]
    outside = (pulses["time"] < edges[:, 0]) | (pulses["time"] > edges[:, 1])
    yield from _first("pulses/time is outside the readout window", outside, slots["pulses"])
    wrong = pulses["number"] != numbers(place["pulses"])
    yield from _first("pulses/number does not count a DOM's pulses from 0", wrong, slots["pulses"])
    if "quantile" in pulses:
        off = np.abs(pulses["quantile"] - quantiles(pulses["charge"], place["pulses"])) > _QUANTILE_TOLERANCE
        yield from _first("pulses/quantile is not the fraction of the DOM's charge", off, slots["pulses"])

    yield from _first("gaps/stop is not behind gaps/start", gaps["stop"] <= gaps["start"], slots["gaps"])
    edges = window[slots["gaps"]]
    outside = (gaps["start"] < edges[:, 0]) | (gaps["stop"] > edges[:, 1])
    yield from _first("gaps reach beyond the readout window", outside, slots["gaps"])
    unsorted = _falls(place["gaps"], gaps["start"])
    yield from _first("gaps are not sorted by DOM and start", unsorted, slots["gaps"])
    overlap = np.zeros(len(place["gaps"]), bool)
    overlap[1:] = (place["gaps"][1:] == place["gaps"][:-1]) & (gaps["start"][1:] < gaps["stop"][:-1])
    yield from _first("gaps of one DOM overlap", overlap, slots["gaps"])
    if not unsorted.any() and not overlap.any():
        blind = in_gap(pulses["time"], place["pulses"], Gaps(gaps["start"], gaps["stop"], place["gaps"]))
        yield from _first("pulses lie in a gap of their DOM", blind, slots["pulses"])

    repeated = np.zeros(len(excluded["dom"]), bool)
    repeated[1:] = place["excluded"][1:] <= place["excluded"][:-1]
    yield from _first("excluded/dom does not rise", repeated, slots["excluded"])


def _falls(place: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(n,) where a row should stand before the one that it follows, by place, then value."""
    falls = np.zeros(len(place), bool)
    falls[1:] = (place[1:] < place[:-1]) | ((place[1:] == place[:-1]) & (value[1:] < value[:-1]))
    return falls


def _first(what: str, wrong: np.ndarray, slots: np.ndarray) -> Iterator[str]:
    if wrong.any():
        yield f"{what}: event {slots[np.flatnonzero(wrong)[0]]} ({int(wrong.sum())} such rows)"
