"""Write one shard: event by event, atomically, with its content digest computed on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hpcreco.shards import attributes as _attributes
from hpcreco.shards.column import Column, conform, filter_options
from hpcreco.shards.digest import content_digest, dataset_entry, meaningful
from hpcreco.shards.schema import EVENTS, ID, Schema, ShardError
from hpcreco.shards.space import abandon, close_trimmed, reserve
from hpcreco.shards.temporary import publish, temporary_path

# Readable by every HDF5 since 1.10 (2016), and the first whose chunk index is fast for growing datasets.
LIBVER = ("v110", "v110")
# Locks guard nothing here (nobody else knows a temporary name) and fail on file systems without them: locking=False.


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what HDF5 raises (a full disk, a quota, a vanished folder) into a ShardError that names the
    file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, ShardError):
            raise
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "errno = 28" in str(error)
        reason = "no space left on the disk" if full else str(error).splitlines()[0]
        remedy = "free some space" if full else "check the folder"
        raise ShardError(f"{path}: cannot be written, {reason}; {remedy} and run again") from error


class ShardWriter:
    """Context manager: append events, leave, and the shard stands under its name - or nothing does.

    `attributes` are the schema's; `columns` names the columns of fields of any width, by "table/field".
    Raises ShardError for whatever does not fit the schema, and for a disk that cannot take the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: Schema,
        attributes: Mapping[str, Any],
        columns: Mapping[str, tuple[str, ...]] | None = None,
        compression: str | None = "default",
    ) -> None:
        self.path = Path(path)
        self.schema = schema
        self.n_events = 0
        self.digest: str | None = None
        self._tables = {table.name: table for table in schema.tables}
        self._fields = {(table.name, field.name): field for table, field in schema.fields()}
        self._attributes = _attributes.check(schema, attributes, self.path)
        self._options = filter_options(compression, self.path)
        self._if_pays = compression == "default"
        self._names = self._column_names(columns or {})
        self._present: dict[str, tuple[str, ...]] = {}  # tables and fields of the first event
        self._columns: dict[tuple[str, str], Column] = {}
        self._offsets: dict[str, list[int]] = {}
        self._ids: list[int] = []
        self._temporary = temporary_path(self.path)
        self._file: Any = None

    def _column_names(self, columns: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        fields = {f"{table}/{field}": declared for (table, field), declared in self._fields.items()}
        for key, names in columns.items():
            if key not in fields or fields[key].columns is None:
                raise ShardError(f"{self.path}: {key!r} is no field with columns of {self.schema.format}")
            fixed = fields[key].columns
            if fixed and tuple(names) != fixed:
                raise ShardError(
                    f"{self.path}: {key} has the columns {', '.join(fixed)}, not {', '.join(names)}"
                )
        return {key: tuple(columns.get(key, field.columns or ())) for key, field in fields.items()}

    def __enter__(self) -> ShardWriter:
        import h5py

        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = h5py.File(self._temporary, "w", libver=LIBVER, locking=False)
                _attributes.store(self._file, self.schema, self._attributes)
            except BaseException:
                self._discard()
                raise
        return self

    def append(self, event_id: int, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Add one event. Arrays have one row per voxel, hit, ...; in a table that is not ragged, one value or
        row.
        """
        if self._file is None:
            raise ShardError(f"{self.path}: events can be added inside the `with` block only")
        where = f"{self.path}: event {event_id}"
        if not self._ids:
            self._start(tables, where)
        given = {name: tuple(sorted(fields)) for name, fields in tables.items() if name in self._present}
        if set(tables) != set(given) or given != self._present:
            raise ShardError(
                f"{where}: tables {_listed(tables)}, but the first event has {_listed(self._present)}"
            )
        rows = {
            name: self._rows(name, tables[name], where) for name in self._present
        }  # all fit, or none is added
        with writing(self.path):
            for name, fields in rows.items():
                for field, array in fields.items():
                    self._columns[name, field].append(array, f"{where}: {name}/{field}")
                if self._tables[name].ragged:
                    count = len(next(iter(fields.values()), ()))
                    self._offsets[name].append(self._offsets[name][-1] + count)
        self._ids.append(int(event_id))
        self.n_events += 1

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute that is known only after the events, such as a sum over them."""
        if self._file is None:
            raise ShardError(f"{self.path}: attributes can be set inside the `with` block only")
        self._attributes = _attributes.check(self.schema, {**self._attributes, name: value}, self.path)
        with writing(self.path):
            _attributes.store(self._file, self.schema, self._attributes)

    def _rows(self, table: str, values: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
        """One event's rows of a table, by field, as they will be stored."""
        rows = {}
        for field in self._present[table]:
            key = f"{table}/{field}"
            declared, per_event = self._fields[table, field], not self._tables[table].ragged
            rows[field] = conform(values[field], declared, per_event, self._names[key], f"{where}: {key}")
        if len({len(array) for array in rows.values()}) > 1:
            lengths = ", ".join(f"{field} {len(array)}" for field, array in rows.items())
            raise ShardError(f"{where}: fields of {table} have different numbers of rows: {lengths}")
        return rows

    def _start(self, tables: Mapping[str, Mapping[str, Any]], where: str) -> None:
        """Decide from the first event which optional tables and fields this shard has."""
        for name, fields in tables.items():
            unknown = [f"{name}/{field}" for field in fields if (name, field) not in self._fields]
            if name not in self._tables or unknown:
                key = unknown[0] if name in self._tables else name
                raise ShardError(f"{where}: {key} is not part of {self.schema.format}")
        for table in self.schema.tables:
            if table.name not in tables:
                if not table.optional and table.fields:
                    raise ShardError(f"{where}: table {table.name} of {self.schema.format} is missing")
                continue
            for field in table.fields:
                if not field.optional and field.name not in tables[table.name]:
                    raise ShardError(f"{where}: {table.name}/{field.name} of {self.schema.format} is missing")
        self._create({name: tuple(sorted(fields)) for name, fields in tables.items()})

    def _create(self, present: dict[str, tuple[str, ...]]) -> None:
        self._present = present
        for name, fields in present.items():
            group = self._file.require_group(name)
            if self._tables[name].ragged:
                self._offsets[name] = [0]
            for field in fields:
                names = self._names[f"{name}/{field}"]
                declared = self._fields[name, field]
                self._columns[name, field] = Column(group, declared, names, self._options, self._if_pays)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            with writing(self.path):
                self._finish()
        except BaseException:  # also a signal's: no partial file may stay behind
            self._discard()
            raise

    def _finish(self) -> None:
        if not self._ids:  # no events: what the schema requires exists, empty
            required = [table for table in self.schema.tables if not table.optional]
            self._create({t.name: tuple(f.name for f in t.fields if not f.optional) for t in required})
        datasets = {f"{table}/{field}": column.finish() for (table, field), column in self._columns.items()}
        for table, offsets in self._offsets.items():
            datasets[f"{table}/offsets"] = self._plain(f"{table}/offsets", offsets)
        datasets[f"{EVENTS}/{ID}"] = self._plain(f"{EVENTS}/{ID}", self._ids)
        volatile = [a.name for a in (*_attributes.COMMON, *self.schema.attributes) if a.volatile]
        content = meaningful(self._attributes, volatile)
        self.digest = content_digest(self.schema.format, self.schema.version, content, datasets)
        seal(self._file, self.digest)
        close_trimmed(self._file)
        self._file = None
        publish(self._temporary, self.path)

    def _plain(self, name: str, numbers: list[int]) -> dict[str, Any]:
        array = np.array(numbers, "<i8")
        reserve(self._file, array.nbytes)
        self._file.create_dataset(name, data=array)
        return dataset_entry(array.dtype, array.shape, (), hashlib.sha256(array.tobytes()))

    def _discard(self) -> None:
        if self._file is not None:
            abandon(self._file)
            self._file = None
        self._temporary.unlink(missing_ok=True)


def seal(file: Any, digest: str) -> None:
    """The last words of a file: what it contains, and that it is complete."""
    _attributes.store_text(file, "content_digest", digest)
    reserve(file)
    file.flush()
    file.attrs["complete"] = np.int64(1)
    file.flush()


def _listed(tables: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name}({', '.join(sorted(fields))})" for name, fields in sorted(tables.items())) or "none"
    )
