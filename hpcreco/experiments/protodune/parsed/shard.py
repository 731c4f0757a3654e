"""Parsed files as hpcreco's HDF5 shards: read and written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hpcreco import shards
from hpcreco.experiments.protodune.parsed.container import ParsedError, TruthVoxels, Waveforms
from hpcreco.experiments.protodune.parsed.schemas import TRUTH, VALUE_COLUMNS, WIRE


class ShardParsed:
    """A parsed HDF5 shard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with shards.Shard(path) as probe:
            format_ = probe.attributes["format"]
        schema = {schema.format: schema for schema in (WIRE, TRUTH)}.get(format_)
        if schema is None:
            raise ParsedError(f"{path}: format {format_} holds neither waveforms nor truth voxels")
        self._shard = shards.Shard(path, schema)
        self.attributes = self._shard.attributes
        self.product: str = self.attributes["product"]
        self.n_events, self.event_ids = self._shard.n_events, self._shard.event_ids

    @property
    def n_ticks(self) -> int:
        return int(self.attributes["n_ticks"])

    @property
    def n_channels(self) -> int:
        return int(self.attributes["n_channels"])

    def waveform(self, event: int) -> Waveforms:
        table = self._shard.read(event, "samples")
        return Waveforms(table["tick"].astype(np.int64), table["channel"].astype(np.int64), table["value"])

    def truth(self, event: int) -> TruthVoxels:
        table = self._shard.read(event, "voxels")
        columns = tuple(self._shard.columns("voxels", "values"))
        return TruthVoxels(table["coords"], table["values"], columns, table.get("track_id"), table.get("pdg"))

    def close(self) -> None:
        self._shard.close()

    def __enter__(self) -> ShardParsed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wire_writer(path: Path, attributes: Mapping[str, Any]) -> AbstractContextManager[shards.ShardWriter]:
    """Writer of a wire or hit file; events are added by `append_waveform`."""
    return shards.ShardWriter(path, WIRE, dict(attributes))


def truth_writer(path: Path, attributes: Mapping[str, Any]) -> AbstractContextManager[shards.ShardWriter]:
    """Writer of a truth file, its columns by the product; events are added by `append_truth`."""
    columns = VALUE_COLUMNS[attributes["product"]]
    return shards.ShardWriter(path, TRUTH, dict(attributes), columns={"voxels/values": columns})


def append_waveform(writer: shards.ShardWriter, event_id: int, tick: Any, channel: Any, value: Any) -> None:
    """Add one event's samples (n,), sorted by (tick, channel)."""
    samples = {"tick": tick, "channel": channel, "value": value}
    dtypes = {"tick": np.uint16, "channel": np.uint16, "value": np.float32}
    writer.append(event_id, {"samples": {k: np.asarray(v).astype(dtypes[k]) for k, v in samples.items()}})


def append_truth(
    writer: shards.ShardWriter, event_id: int, coords: Any, values: Any, track_id: Any = None, pdg: Any = None
) -> None:
    """Add one event's voxels; `values` (n,) or (n, 1). Ids must be given for all events of a file or for none."""
    voxels = {
        "coords": np.asarray(coords).astype(np.int32).reshape(-1, 3),
        "values": np.asarray(values).astype(np.float32).reshape(-1, 1),
    }
    for name, ids in (("track_id", track_id), ("pdg", pdg)):
        if ids is not None:
            voxels[name] = np.asarray(ids).astype(np.int32)
    writer.append(event_id, {"voxels": voxels})
