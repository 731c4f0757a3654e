"""Read one shard: only what is asked for, event by event."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hpcreco.shards import attributes as _attributes
from hpcreco.shards.access import open_hdf5, reading
from hpcreco.shards.direct import DirectDataset, FilteredDataset, Hdf5Dataset, reader_of
from hpcreco.shards.layout import Layout, numbers
from hpcreco.shards.schema import EVENTS, ID, Field, Schema, ShardError


def identify(path: str | os.PathLike[str]) -> tuple[str, int] | None:
    """(format, version) of a file of ours, complete or not; None for any other file."""
    import h5py

    if not Path(path).is_file() or not h5py.is_hdf5(path):
        return None
    with open_hdf5(Path(path)) as file, reading(Path(path), "the header"):
        attributes = _attributes.load(file)
    if not isinstance(attributes.get("format"), str) or not isinstance(attributes.get("version"), int):
        return None
    return attributes["format"], attributes["version"]


def check_identity(path: Path, attributes: dict[str, Any], schema: Schema | None) -> None:
    """Raises ShardError for a file that is not ours, not complete, or not of this schema."""
    format_, version = attributes.get("format"), attributes.get("version")
    if not isinstance(format_, str) or not format_.startswith("hpcreco/") or version is None:
        raise ShardError(
            f"{path}: an HDF5 file without hpcreco's `format` and `version`; `hpcreco convert` may help"
        )
    if attributes.get("complete") != 1:
        raise ShardError(f"{path}: incomplete, its writer did not finish; remove it and make it again")
    if schema is None:
        return
    if format_ != schema.format:
        raise ShardError(
            f"{path}: format is {format_}, expected {schema.format}; give a file of that product"
        )
    if version != schema.version:
        raise ShardError(f"{path}: {format_} version {version}, expected {schema.version}; make it again")
    missing = [a.name for a in schema.attributes if a.required and a.name not in attributes]
    if missing:
        raise ShardError(f"{path}: attribute {missing[0]!r} of {format_} is missing; make the file again")


class Shard:
    """A complete shard, open for reading. Reads are thread-safe; a context manager closes it.

    copy: a file of the same content to read instead, as long as it is there; the shard keeps its own path.

    Raises ShardError, naming the path and a remedy, for a file that is truncated, incomplete or of another
    schema.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: Schema | None = None,
        copy: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.schema = schema
        self._file = open_hdf5(Path(copy) if copy is not None and Path(copy).is_file() else self.path)
        self._descriptor = -1
        self._lock = threading.Lock()
        self._offsets: dict[str, np.ndarray] = {}
        self._columns: dict[tuple[str, str], DirectDataset | FilteredDataset | Hdf5Dataset] = {}
        try:
            with reading(self.path, "the header"):
                self._header = _attributes.header(self._file)
            check_identity(self.path, self._header, schema)
            with reading(self.path):
                self._layout = Layout(self._file, self.path)
            with reading(self.path, f"{EVENTS}/{ID}"):
                self.n_events: int = self._layout.shapes(EVENTS)[ID][0]
            self._check_tables(schema)
        except BaseException:
            self.close()
            raise

    def _check_tables(self, schema: Schema | None) -> None:
        if schema is None:
            return
        for table, field in schema.fields():
            needed = not field.optional and (not table.optional or self.has(table.name))
            if needed and not self.has(table.name, field.name):
                raise ShardError(f"{self.path}: {table.name}/{field.name} of {schema.format} is missing")
            if self.has(table.name, field.name):
                self._check_field(table.name, field)

    def _check_field(self, table: str, field: Field) -> None:
        where = f"{self.path}: {table}/{field.name}"
        with reading(self.path, f"{table}/{field.name}"):
            dtype = self._file[table][field.name].dtype
        if dtype != np.dtype(field.dtype):
            raise ShardError(f"{where} has type {dtype}, expected {field.dtype}; make the file again")
        shape = self._shapes(table)[field.name]
        if len(shape) != (1 if field.columns is None else 2):
            raise ShardError(
                f"{where} has shape {shape}, expected {'(n,)' if field.columns is None else '(n, k)'}"
            )
        if field.columns and shape[1] != len(field.columns):
            raise ShardError(f"{where} has {shape[1]} columns, expected {', '.join(field.columns)}")

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._columns.clear()
        if self._file is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            self._file = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """All attributes as Python values, read when they are first asked for."""
        if self._file is None:
            raise ShardError(f"{self.path}: its attributes were asked for after it was closed")
        with reading(self.path, "the header"):
            return _attributes.load(self._file)

    @property
    def format(self) -> str:
        return self._header["format"]

    @property
    def version(self) -> int:
        return self._header["version"]

    @property
    def digest(self) -> str:
        """The content digest recorded when the shard was written."""
        return self._header["content_digest"]

    @property
    def event_ids(self) -> np.ndarray:
        """int64 (n_events): each event's number in the file it came from."""
        with reading(self.path, f"{EVENTS}/{ID}"):
            return numbers(self._file, f"{EVENTS}/{ID}")

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Names of the tables, each with its fields."""
        named = {
            t: tuple(f for f in self._shapes(t) if f not in ("offsets", ID)) for t in self._layout.tables
        }
        return {table: fields for table, fields in named.items() if fields or table != EVENTS}

    def _shapes(self, table: str) -> dict[str, tuple[int, ...]]:
        with reading(self.path, table):
            return self._layout.shapes(table)

    def has(self, table: str, field: str | None = None) -> bool:
        return table in self._layout.tables and (field is None or field in self._shapes(table))

    def columns(self, table: str, field: str) -> tuple[str, ...]:
        """Names of the columns of a field; empty where it has none."""
        with reading(self.path, f"{table}/{field}"):
            return tuple(_attributes.load(self._file[table][field]).get("columns", ()))

    def rows(self, table: str) -> np.ndarray:
        """int64 (n_events): rows of `table` per event."""
        offsets = self.offsets(table)
        return np.diff(offsets)

    def offsets(self, table: str) -> np.ndarray:
        """int64 (n_events + 1): event e has the rows offsets[e] .. offsets[e+1]-1 of `table`."""
        if table not in self._offsets:
            self._offsets[table] = self._load_offsets(table)
        return self._offsets[table]

    def _load_offsets(self, table: str) -> np.ndarray:
        where = f"{self.path}: {table}/offsets"
        if not self.has(table):
            raise ShardError(f"{self.path}: no table {table!r}; it has {', '.join(self._layout.tables)}")
        shapes = self._shapes(table)
        with reading(self.path, f"{table}/offsets"):
            lengths = {name: shape[0] for name, shape in shapes.items() if name != "offsets"}
            if "offsets" in shapes:
                offsets = numbers(self._file, f"{table}/offsets")
            else:
                offsets = np.arange(self.n_events + 1, dtype=np.int64)
        if len(offsets) != self.n_events + 1:
            raise ShardError(
                f"{where} describe {len(offsets) - 1} events but {EVENTS}/{ID} has {self.n_events}; make the file again"
            )
        if offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ShardError(f"{where} should start at 0 and never fall; make the file again")
        for name, length in lengths.items():
            if length != offsets[-1]:
                raise ShardError(
                    f"{self.path}: {table}/{name} has {length} rows, its events need {offsets[-1]}; make the file again"
                )
        return offsets

    def read(self, event: int, table: str, fields: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The rows of one event, by field (all fields of the table unless named)."""
        return self.read_events(event, event + 1, table, fields)

    def read_events(
        self, lo: int, hi: int, table: str, fields: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The rows of the events lo .. hi-1, by field."""
        if not 0 <= lo <= hi <= self.n_events:
            raise ShardError(f"{self.path}: events {lo}..{hi - 1} asked for, it has 0..{self.n_events - 1}")
        offsets = self.offsets(table)
        first, last = int(offsets[lo]), int(offsets[hi])
        names = self.tables[table] if fields is None else fields
        return {name: self.read_rows(first, last, table, name) for name in names}

    def read_rows(self, first: int, last: int, table: str, field: str) -> np.ndarray:
        """Rows first .. last-1 of one field, whichever events they belong to."""
        column = self._column(table, field)
        with reading(self.path, f"{table}/{field}"):
            return column.read(first, last)

    def _column(self, table: str, field: str) -> DirectDataset | FilteredDataset | Hdf5Dataset:
        key = (table, field)
        if key in self._columns:
            return self._columns[key]
        with self._lock:
            if not self.has(table, field):
                raise ShardError(
                    f"{self.path}: no field {table}/{field}; {table} has {', '.join(self._shapes(table))}"
                )
            with reading(self.path, f"{table}/{field}"):
                dataset = self._file[table][field]
                if self._descriptor < 0:
                    # HDF5's own, not the path's: the file may have been replaced since it was opened
                    self._descriptor = os.dup(self._file.id.get_vfd_handle())
                self._columns[key] = reader_of(self._descriptor, dataset)
                return self._columns[key]
