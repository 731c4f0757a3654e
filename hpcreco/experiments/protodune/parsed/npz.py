"""The original program's parsed files: compressed npz with one array per event, ``arr_0 ... arr_{n-1}``.

Waveforms are dense (ticks, channels); truth has rows x, y, z, value, and for depo also track id and PDG.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, names
from hpcreco.experiments.protodune.parsed.container import ParsedError, TruthVoxels, Waveforms
from hpcreco.experiments.protodune.parsed.schemas import NO_TPC, VALUE_COLUMNS, WAVEFORM_PRODUCTS
from hpcreco.experiments.protodune.parsed.shard import (
    ShardParsed,
    append_truth,
    append_waveform,
    truth_writer,
    wire_writer,
)


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
            shape = self.array(0).shape if self.n_events else (0, 0)
            if len(shape) != 2:
                raise ParsedError(f"{self.path}: waveforms must be (ticks, channels), found shape {shape}")
            self._shape = shape
        return self._shape

    def array(self, event: int) -> np.ndarray:
        """The array of an event, whatever the product."""
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
        dense = self.array(event)
        if dense.shape != self._readout():
            raise ParsedError(
                f"{self.path}: event {event} has shape {dense.shape}, the first {self._readout()}"
            )
        tick, channel = np.nonzero(dense)
        return Waveforms(tick, channel, dense[tick, channel].astype(np.float32))

    def truth(self, event: int) -> TruthVoxels:
        table = np.asarray(self.array(event), dtype=np.float64)
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
    with ShardParsed(source) as file:
        events = range(file.n_events)
        if file.product in WAVEFORM_PRODUCTS:
            write_npz(path, (dense_waveform(file.waveform(e), file.n_ticks, file.n_channels) for e in events))
        else:
            write_npz(path, (truth_rows(file.truth(e), file.product) for e in events))


def import_attributes(file: NpzParsed, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of the HDF5 file made of a legacy npz; `extra` say how it came about."""
    detector = geometry.load()
    attributes = {**file.attributes, "geometry": detector.name, "geometry_digest": detector.digest, **extra}
    joined = names.require(file.path).tpcs
    if joined:
        attributes["tpcs"] = list(joined)
    attributes["tpc"] = NO_TPC if file.attributes["tpc"] is None else file.attributes["tpc"]
    return attributes


def import_npz(source: Path, path: Path, extra: Mapping[str, Any], allow_pickle: bool = False) -> None:
    """Write the parsed HDF5 file of a legacy npz; `extra` are attributes that say how it came about."""
    with NpzParsed(source, allow_pickle) as file:
        attributes = import_attributes(file, extra)
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
