"""One growing dataset of a shard being written: rows are checked, hashed, buffered and written in whole
chunks.

Layout (figures: tools/bench/shard_read.py). With a filter a chunk holds about an eighth of an event, at most
16 384 rows: reading one event then decompresses little beyond it, and larger chunks compress no better; smaller
ones save as much of their neighbours as their number costs. gzip level 1 after a byte shuffle makes files
within 2 % of level 4 and reads 10 to 15 % faster; lzf is no faster to read, by one thread at a time, and 10 %
larger. By default a field is filtered only where that makes it a fifth smaller: charges would shrink by 16 %,
for half of the time that writing an event takes and a third of that of reading it. Without a filter a chunk
holds about one event, so that it is read by one or two contiguous reads; what fits in the buffer is written
contiguously.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import numpy as np

from hpcreco.shards.attributes import store_field
from hpcreco.shards.digest import dataset_entry, little_endian
from hpcreco.shards.schema import Field, ShardError
from hpcreco.shards.space import reserve

_PAYS = 0.8  # compressed / plain bytes above which a filter is not worth its time
_TRIAL = 1 << 17  # bytes that this is tried on
_DECIDE_ROWS = 1 << 17  # rows buffered before the layout is decided from the mean event
_FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
}


def filter_options(compression: str | None, path: object) -> dict[str, Any]:
    """h5py's dataset options for "default" and "gzip" (gzip 1 and shuffle), "none", "lzf", or "gzip-<level>"."""
    name = {"default": "gzip", None: "none"}.get(compression, compression)
    if name in _FILTERS:
        return _FILTERS[name]
    head, _, level = str(name).partition("-")
    if head == "gzip" and level in set("0123456789"):
        return {**_FILTERS["gzip"], "compression_opts": int(level)}
    raise ShardError(
        f"{path}: compression {compression!r} is none of default, none, lzf, gzip, gzip-0 ... gzip-9"
    )


def pays(rows: np.ndarray) -> bool:
    """Whether gzip 1 after a byte shuffle makes these rows at least a fifth smaller, by the first of them."""
    if rows.size == 0:
        return False
    sample = np.ascontiguousarray(rows.reshape(-1)[: max(1, _TRIAL // rows.itemsize)])
    shuffled = sample.view(np.uint8).reshape(-1, sample.itemsize).T.tobytes()
    return len(zlib.compress(shuffled, 1)) <= _PAYS * len(shuffled)


def chunk_rows(mean_rows: float, filtered: bool) -> int:
    """Rows per chunk for events of `mean_rows` rows."""
    if not filtered:
        return int(min(max(mean_rows, 1 << 12), 1 << 18))
    eighth = 1 << max(0, int(mean_rows / 8).bit_length() - 1)
    return min(max(eighth, 1 << 10), 1 << 14)


def conform(
    value: Any, field: Field, per_event: bool, names: tuple[str, ...] | None, where: str
) -> np.ndarray:
    """`value` as rows of `field`: shape (n,) or (n, k), of its type, little-endian.

    A per-event field's value is one row: a scalar, or k numbers. Integers may change width if every number
    fits; floating point may not become integer. Raises ShardError, naming the field, otherwise and for NaN or
    infinity.
    """
    array = np.asarray(value)
    if per_event:
        array = array[np.newaxis]
    wanted = 1 if field.columns is None else 2
    if array.ndim != wanted:
        raise ShardError(f"{where} should have {wanted} dimension(s) of rows, it has shape {array.shape}")
    expected = field.columns or names
    if wanted == 2 and expected and array.shape[1] != len(expected):
        raise ShardError(f"{where} should have the columns {', '.join(expected)}, it has shape {array.shape}")
    return little_endian(_cast(array, np.dtype(field.dtype), field.finite, where))


def _cast(array: np.ndarray, dtype: np.dtype, finite: bool, where: str) -> np.ndarray:
    kinds = array.dtype.kind + dtype.kind
    if array.dtype != dtype:
        if kinds not in {"ii", "iu", "ui", "uu", "if", "uf", "ff", "bb"} and array.size:
            raise ShardError(
                f"{where} should be {dtype.name}, it is {array.dtype.name}; convert it on purpose"
            )
        if dtype.kind in "iu" and array.size:
            limits = np.iinfo(dtype)
            if int(array.min()) < limits.min or int(array.max()) > limits.max:
                raise ShardError(
                    f"{where} has numbers from {array.min()} to {array.max()}, outside {dtype.name}"
                )
        with np.errstate(over="ignore"):  # what overflows to infinity is refused below, by name
            array = array.astype(dtype)
    if finite and dtype.kind == "f" and array.size and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ShardError(f"{where} has {count} NaN or infinite value(s); repair or drop them before writing")
    return array


class Column:
    """The dataset `name` of an open HDF5 `group`, appended to event by event.

    options: h5py's for its filters. if_pays: without them where they would not make it much smaller.
    """

    def __init__(
        self, group: Any, field: Field, names: tuple[str, ...], options: dict[str, Any], if_pays: bool = False
    ) -> None:
        self.field = field
        self.names = names
        self.width: int | None = len(names) or None
        self.rows = 0
        self._group = group
        self._options = options
        self._if_pays = if_pays
        self._hash = hashlib.sha256()
        self._buffer: list[np.ndarray] = []
        self._buffered = 0
        self._events = 0
        self._dataset: Any = None
        self._chunk = 0
        self._written = 0

    def append(self, rows: np.ndarray, where: str) -> None:
        if rows.ndim == 2:
            if self.width is None:
                self.width = rows.shape[1]
            if rows.shape[1] != self.width:
                raise ShardError(f"{where} has {rows.shape[1]} columns, earlier events have {self.width}")
        self._hash.update(rows.tobytes() if rows.size == 0 else memoryview(rows).cast("B"))
        self._buffer.append(rows.copy())  # the caller may reuse its array before the buffer is written
        self._buffered += len(rows)
        self.rows += len(rows)
        self._events += 1
        if self._dataset is None and self._buffered >= _DECIDE_ROWS:
            self._create()
        if self._dataset is not None and self._buffered >= self._chunk:
            self._write(self._buffered // self._chunk * self._chunk)

    def finish(self) -> dict[str, Any]:
        """Write what is left; return what the dataset adds to the digest."""
        shape = (self.rows,) if self.field.columns is None else (self.rows, self.width or 0)
        if self._dataset is None:
            self._create(shape)
        self._write(self._buffered)
        return dataset_entry(np.dtype(self.field.dtype), shape, self.names, self._hash)

    def _create(self, final_shape: tuple[int, ...] | None = None) -> None:
        """The dataset, at once in its final shape where that is known, growing otherwise."""
        dtype = np.dtype(self.field.dtype).newbyteorder("<")
        tail = () if self.field.columns is None else (self.width or 0,)
        if self._if_pays and not pays(max(self._buffer, key=len, default=np.zeros(0))):
            self._options = {}
        self._chunk = chunk_rows(self.rows / max(1, self._events), bool(self._options))
        if final_shape is not None and (0 in final_shape or not self._options):
            self._dataset = self._group.create_dataset(self.field.name, final_shape, dtype)
        else:
            rows = 0 if final_shape is None else final_shape[0]
            self._chunk = min(self._chunk, rows) if rows else self._chunk
            self._dataset = self._group.create_dataset(
                self.field.name,
                (rows, *tail),
                dtype,
                maxshape=(None, *tail) if final_shape is None else None,
                chunks=(self._chunk, *tail),
                **self._options,
            )
        store_field(self._dataset, self.names, self.field.unit, self.field.finite)

    def _write(self, count: int) -> None:
        """Move the first `count` buffered rows to the file."""
        if not count:
            return
        rows = np.concatenate(self._buffer) if len(self._buffer) > 1 else self._buffer[0]
        self._buffer = [rows[count:].copy()] if count < len(rows) else []
        self._buffered -= count
        end = self._written + count
        reserve(self._group.file, rows[:count].nbytes)
        if self._dataset.shape[0] < end:
            self._dataset.resize(end, axis=0)
        self._dataset[self._written : end] = rows[:count]
        self._written = end
