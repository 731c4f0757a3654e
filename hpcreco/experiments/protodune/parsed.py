"""Parsed files: waveforms (wire, hit) and truth voxels (energy, depo, depoElectron, ...) of one TPC, event by event.

Two containers hold the same content: hpcreco's HDF5 shards, and the original program's compressed npz with
one array per event, ``arr_0 ... arr_{n-1}``. `open_parsed` reads either.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, names
from hpcreco.shards import Attribute, Field, Schema, Table

WAVEFORM_PRODUCTS = ("wire", "hit")
NO_TPC = -1  # the `tpc` attribute of a file whose name holds none
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
    Attribute("tpc", "int"),
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
                Field("pdg", "<i4"),
                Field("beam", "|u1"),
                Field("kinetic_energy", "<f4", unit="MeV"),
                Field("start", "<f4", ("x", "y", "z"), unit="mm, detector frame"),
                Field("time", "<f4", unit="us relative to the trigger"),
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


class NpzParsed:
    """A legacy parsed file. The product comes from its name, the readout size from the shape of its arrays."""

    def __init__(self, path: Path, allow_pickle: bool = False) -> None:
        self.path = path
        name = names.require(path)
        self.product = name.product
        self.attributes: dict[str, Any] = {
            "event_type": name.event_type,
            "index": name.index,
            "tpc": name.tpc,
            "product": name.product,
        }
        self._shape: tuple[int, int] | None = None
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise ParsedError(f"{path}: cannot be opened ({error.strerror})") from error
        try:
            self._file = np.load(self._stream, allow_pickle=allow_pickle)
            count = self._count()
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            self._stream.close()  # np.load leaves it open; AttributeError: a single array, not an archive
            raise ParsedError(f"{path}: not a readable npz file ({error}); make it again") from error
        except ParsedError:
            self.close()
            raise
        self.n_events, self.event_ids = count, np.arange(count, dtype=np.int64)

    def _count(self) -> int:
        count = len(self._file.files)
        if set(self._file.files) != {f"arr_{event}" for event in range(count)}:
            found = ", ".join(sorted(self._file.files))
            raise ParsedError(f"{self.path}: expected the arrays arr_0 ... arr_{count - 1}, found {found}")
        return count

    @property
    def n_ticks(self) -> int:
        return self._readout()[0]

    @property
    def n_channels(self) -> int:
        return self._readout()[1]

    def _readout(self) -> tuple[int, int]:
        if self._shape is None:
            shape = self._array(0).shape if self.n_events else (0, 0)
            if len(shape) != 2:
                raise ParsedError(f"{self.path}: waveforms must be (ticks, channels), found shape {shape}")
            self._shape = shape
        return self._shape

    def _array(self, event: int) -> np.ndarray:
        try:
            return self._file[f"arr_{event}"]
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise ParsedError(
                    f"{self.path}: event {event} is a pickled array, which can run code; "
                    "if you trust the file, convert it with --allow-pickle"
                ) from error
            raise ParsedError(f"{self.path}: event {event} cannot be read ({error})") from error
        except (OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
            raise ParsedError(
                f"{self.path}: event {event} cannot be read ({error}); the file is damaged"
            ) from error

    def waveform(self, event: int) -> Waveforms:
        dense = self._array(event)
        if dense.shape != self._readout():
            raise ParsedError(
                f"{self.path}: event {event} has shape {dense.shape}, the first {self._readout()}"
            )
        tick, channel = np.nonzero(dense)
        return Waveforms(tick, channel, dense[tick, channel].astype(np.float32))

    def truth(self, event: int) -> TruthVoxels:
        table = np.asarray(self._array(event), dtype=np.float64)
        wanted = 6 if self.product == "depo" else 4
        if len(table) == 0:
            table = np.zeros((0, wanted))
        if table.ndim != 2 or table.shape[1] != wanted:
            raise ParsedError(
                f"{self.path}: event {event} has shape {table.shape}, {self.product} needs {wanted} columns"
            )
        ids = table[:, 4:].astype(np.int32)
        track, pdg = (ids[:, 0], ids[:, 1]) if wanted == 6 else (None, None)
        columns = VALUE_COLUMNS[self.product]
        return TruthVoxels(
            table[:, :3].astype(np.int32), table[:, 3:4].astype(np.float32), columns, track, pdg
        )

    def close(self) -> None:
        self._file.close()
        self._stream.close()

    def __enter__(self) -> NpzParsed:
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


def write_npz(path: Path, arrays: Iterable[np.ndarray]) -> None:
    """Write ``arr_0, arr_1, ...`` compressed, one array in memory at a time; the file appears when complete."""
    with shards.atomic(path) as temporary, zipfile.ZipFile(temporary, "w", compresslevel=4) as archive:
        for number, array in enumerate(arrays):
            # ZipInfo's fixed date keeps equal content equal byte for byte
            member = zipfile.ZipInfo(f"arr_{number}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def dense_waveform(waveform: Waveforms, n_ticks: int, n_channels: int) -> np.ndarray:
    """float32 (n_ticks, n_channels) of one event, the legacy layout."""
    dense = np.zeros((n_ticks, n_channels), np.float32)
    dense[waveform.tick, waveform.channel] = waveform.value
    return dense


def truth_rows(truth: TruthVoxels, product: str) -> np.ndarray:
    """Legacy rows of one event: (n, 6) for depo, else (n, 4); float64 keeps track ids exact."""
    rows = [truth.coords, truth.values[:, :1]]
    if product == "depo":
        zero = np.zeros(len(truth.coords), np.int32)
        rows += [(zero if ids is None else ids)[:, None] for ids in (truth.track_id, truth.pdg)]
    return np.concatenate(rows, axis=1, dtype=np.float64)


def export_npz(source: Path, path: Path) -> None:
    """Write the legacy npz of a parsed HDF5 file."""
    with open_parsed(source) as file:
        events = range(file.n_events)
        if file.product in WAVEFORM_PRODUCTS:
            write_npz(path, (dense_waveform(file.waveform(e), file.n_ticks, file.n_channels) for e in events))
        else:
            write_npz(path, (truth_rows(file.truth(e), file.product) for e in events))


def import_npz(source: Path, path: Path, extra: Mapping[str, Any], allow_pickle: bool = False) -> None:
    """Write the parsed HDF5 file of a legacy npz; `extra` are attributes that say how it came about."""
    detector = geometry.load()
    with NpzParsed(source, allow_pickle) as file:
        attributes = {
            **file.attributes,
            "geometry": detector.name,
            "geometry_digest": detector.digest,
            **extra,
        }
        attributes["tpc"] = NO_TPC if file.attributes["tpc"] is None else file.attributes["tpc"]
        if file.product in WAVEFORM_PRODUCTS:
            attributes |= {"n_ticks": file.n_ticks, "n_channels": file.n_channels}
            with wire_writer(path, attributes) as writer:
                for event in range(file.n_events):
                    append_waveform(writer, event, *file.waveform(event))
            return
        with truth_writer(path, attributes) as writer:
            for event in range(file.n_events):
                truth = file.truth(event)
                append_truth(writer, event, truth.coords, truth.values, truth.track_id, truth.pdg)
