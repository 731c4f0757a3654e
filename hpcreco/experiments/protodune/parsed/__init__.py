"""Parsed files: waveforms (wire, hit) and truth voxels (energy, depo, depoElectron, ...) of one TPC, event by event.

Two containers hold the same content: hpcreco's HDF5 shards, and the original program's compressed npz with
one array per event, ``arr_0 ... arr_{n-1}``. `open_parsed` reads either.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hpcreco import shards
from hpcreco.shards import Attribute, Field, Schema, Table

NO_TPC = -1  # the `tpc` attribute of a file whose name holds none, or several
WAVEFORM_PRODUCTS = ("wire", "hit")
#: columns of the values of each truth-like product, in MeV or electrons
VALUE_COLUMNS = {
    "energy": ("energy",),
    "depo": ("energy",),
    "depoElectron": ("electrons",),
    "spacepoint": ("charge",),
    "wirecell": ("charge",),
}

_ATTRIBUTES = (
    Attribute("event_type", "str"),
    Attribute("index", "int"),
    Attribute("product", "str"),
    Attribute("tpc", "int"),  # NO_TPC for none or several
    Attribute("tpcs", "ints", required=False),  # of several
    Attribute("joined", "json", required=False),  # their frame, shifts, residuals, counts
    Attribute("recipe", "json", required=False, volatile=True),  # what decides whether it is stale
    Attribute("geometry", "str"),
    Attribute("geometry_digest", "str"),
    Attribute("generator", "str"),  # simulation, npz, frames, bee, depos
    Attribute("seed", "int", required=False),
    Attribute("settings", "json", required=False),
    Attribute("fingerprint", "str", required=False),
    Attribute("source", "strs", required=False, volatile=True),
)
WIRE = Schema(
    "hpcreco/protodune/wire",
    1,
    tables=(
        Table(
            "samples",
            (Field("tick", "<u2"), Field("channel", "<u2"), Field("value", "<f4", unit="electrons per tick")),
        ),
    ),
    attributes=(
        *_ATTRIBUTES,
        Attribute("n_ticks", "int"),
        Attribute("n_channels", "int"),
        Attribute("dead_channels", "ints", required=False),
    ),
)
TRUTH = Schema(
    "hpcreco/protodune/truth",
    1,
    tables=(
        Table(
            "voxels",
            (
                Field("coords", "<i4", ("x", "y", "z"), unit="fine voxels of the readout frame"),
                Field("values", "<f4", (), unit="MeV or electrons, see the column names"),
                Field("track_id", "<i4", optional=True),
                Field("pdg", "<i4", optional=True),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
PARTICLES = Schema(
    "hpcreco/protodune/particles",
    1,
    tables=(
        Table(
            "particles",
            (
                Field("track_id", "<i4"),
                Field("beam", "|u1"),
                # the original program's files know no more
                Field("pdg", "<i4", optional=True),
                Field("kinetic_energy", "<f4", unit="MeV", optional=True),
                Field("start", "<f4", ("x", "y", "z"), unit="mm, detector frame", optional=True),
                Field("time", "<f4", unit="us relative to the trigger", optional=True),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
TRAJECTORIES = Schema(
    "hpcreco/protodune/trajectories",
    1,
    tables=(
        Table(
            "trajectories",
            (
                Field("track_id", "<i4"),
                Field("points", "<i4"),
                Field("start", "<i4", ("x", "y", "z"), unit="fine voxel"),
                Field("end", "<i4", ("x", "y", "z"), unit="fine voxel"),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
CALO = Schema(
    "hpcreco/protodune/calo",
    1,
    tables=(
        Table(
            "objects",  # reconstructed tracks and showers, once per plane
            (
                Field("shower", "|u1"),  # else a track
                Field("plane", "|u1"),
                Field("kinetic_energy", "<f4", unit="MeV", finite=False),
            ),
        ),
        Table(
            "points",  # averaged over fine voxels
            (
                Field("object", "<i4"),  # row of `objects` in the event
                Field("coords", "<f4", ("x", "y", "z"), unit="fine voxel"),
                Field("values", "<f4", ("dqdx", "dedx", "residual_range"), finite=False),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)


class ParsedError(RuntimeError):
    """A parsed file cannot be read; the message names the file and the remedy."""

    exit_code = 1


class Waveforms(NamedTuple):
    """Non-zero samples of one event, sorted by (tick, channel): int64, int64, float32 (n,)."""

    tick: np.ndarray
    channel: np.ndarray
    value: np.ndarray


class TruthVoxels(NamedTuple):
    """Voxels of one event: coords int32 (n, 3), values float32 (n, len(columns)); ids int32 (n,) or None."""

    coords: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]
    track_id: np.ndarray | None
    pdg: np.ndarray | None


Self = TypeVar("Self")


class Parsed(Protocol):
    """What both containers offer. `waveform` needs a wire or hit file, `truth` any other."""

    path: Path
    product: str
    attributes: dict[str, Any]
    n_events: int
    event_ids: np.ndarray

    @property
    def n_ticks(self) -> int: ...
    @property
    def n_channels(self) -> int: ...
    def waveform(self, event: int) -> Waveforms: ...
    def truth(self, event: int) -> TruthVoxels: ...
    def close(self) -> None: ...
    def __enter__(self: Self) -> Self: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...


def open_parsed(path: str | os.PathLike[str], allow_pickle: bool = False) -> Parsed:
    """Open a parsed file, ``.h5`` or legacy ``.npz``. Pickled npz arrays are read only with `allow_pickle`."""
    path = Path(path)
    if path.suffix == ".npz":
        from hpcreco.experiments.protodune.parsed.npz import NpzParsed

        return NpzParsed(path, allow_pickle)
    return ShardParsed(path)


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
