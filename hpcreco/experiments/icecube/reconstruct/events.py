"""Events of pulses shards as a likelihood sees them, with what is known of them besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hpcreco import shards
from hpcreco.data.batch import collate
from hpcreco.experiments.icecube.dataset import PulseReader, seed_columns
from hpcreco.experiments.icecube.observe import observe
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.reading import Reading
from hpcreco.experiments.icecube.reconstruct.pipeline import Given
from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings
from hpcreco.experiments.icecube.sources.contract import Observation


def observation(source: shards.Shard, events: Iterable[int], seeds: Sequence[str] = ()) -> Observation:
    """The events with these positions in the shard."""
    read = PulseReader(Reading(seeds=tuple(seeds)))
    rng = np.random.default_rng(0)
    batch = collate([read(source, event, rng) for event in events])
    return observe(batch, int(np.prod(source.attributes["detector_shape"])))


def seed_names(source: shards.Shard, settings: ReconstructionSettings) -> tuple[str, ...]:
    """Which of the wanted start values the shard has."""
    wanted = dict.fromkeys((*settings.seed, *settings.skyscan.centres))
    return tuple(name for name in wanted if seed_columns(source, name))


def given(source: shards.Shard, events: Sequence[int], seeds: Sequence[str]) -> Given:
    """Seeds and truth of events."""
    found: dict[str, tuple[np.ndarray, Sequence[str]]] = {}
    if seeds:
        values = np.concatenate([source.read(event, "seeds", ("values",))["values"] for event in events])
        columns = source.columns("seeds", "values")
        for name in seeds:
            chosen = [i for i, column in enumerate(columns) if column.rpartition("/")[0] == name]
            found[name] = values[:, chosen].astype(np.float64), seed_columns(source, name)
    truth = None
    if source.has("event", "parameters"):
        values = np.concatenate([source.read(e, "event", ("parameters",))["parameters"] for e in events])
        truth = values.astype(np.float64), source.columns("event", "parameters")
    ids = source.event_ids
    return Given(found, truth, tuple(int(ids[event]) for event in events))


def open_events(path: str | Path, events: Sequence[int]) -> tuple[Observation, Given]:
    """The events at some positions of a shard, with all seeds and the truth that the shard has."""
    with shards.Shard(path, PULSES) as source:
        columns = source.columns("seeds", "values") if source.has("seeds") else ()
        names = tuple(dict.fromkeys(column.rpartition("/")[0] for column in columns))
        return observation(source, events, names), given(source, events, names)
