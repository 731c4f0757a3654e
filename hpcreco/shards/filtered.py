"""Read datasets behind the standard filters, byte shuffle and deflate, with plain file reads.

HDF5 inflates under one lock of the whole process: two threads that read take turns. Here a chunk is read, inflated and
unshuffled by calls that let other threads run. What is unusual is left to HDF5.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from hpcreco.shards.access import CHUNK_CACHE, fill

_DEFLATE, _SHUFFLE = 1, 2  # HDF5's numbers of filters
_KNOWN = ((), (_DEFLATE,), (_SHUFFLE,), (_SHUFFLE, _DEFLATE))  # in the order in which a writer applies them


class Stored(NamedTuple):
    """Where the bytes of a chunk are; bit i of `skipped`: filter i was not applied to it."""

    address: int
    size: int
    skipped: int


class FilteredDataset:
    """Rows of a chunked dataset, `filters` by HDF5's numbers. Thread-safe."""

    def __init__(
        self, file_descriptor: int, dataset: Any, filters: tuple[int, ...], chunks: dict[int, Stored]
    ) -> None:
        self._fd = file_descriptor
        self._dtype = np.dtype(dataset.dtype.str)  # h5py's carries metadata and prints oddly
        self._tail = dataset.shape[1:]
        self._rows = dataset.chunks[0]
        self._filters = filters
        self._chunks = chunks
        self._edges = _Edges()

    def read(self, lo: int, hi: int) -> np.ndarray:
        """Rows lo..hi-1. Raises OSError where the file ends too early or a chunk is damaged."""
        rows = np.empty((hi - lo, *self._tail), self._dtype)
        first = lo
        while first < hi and rows.size:
            number = first // self._rows
            start, end = number * self._rows, (number + 1) * self._rows
            last = min(hi, end)
            part = rows[first - lo : last - lo]
            if last - first == self._rows:
                self._decode(number, part)
            else:
                part[:] = self._edge(number)[first - start : last - start]
            first = last
        return rows

    def _edge(self, number: int) -> np.ndarray:
        """A whole chunk, of which the neighbouring event will want the rest."""
        chunk = self._edges.get(number)
        if chunk is None:
            chunk = np.empty((self._rows, *self._tail), self._dtype)
            self._decode(number, chunk)
            self._edges.put(number, chunk)
        return chunk

    def _decode(self, number: int, rows: np.ndarray) -> None:
        """Read a chunk into `rows`."""
        stored = self._chunks[number]
        data: bytes | bytearray = bytearray(stored.size)
        fill(self._fd, memoryview(data), stored.address)
        applied = [code for place, code in enumerate(self._filters) if not stored.skipped >> place & 1]
        if _DEFLATE in applied:
            try:
                data = zlib.decompress(data, bufsize=rows.nbytes)
            except zlib.error as error:
                raise OSError(f"chunk {number} cannot be inflated, {error}") from error
        if len(data) != rows.nbytes:
            raise OSError(f"chunk {number} has {len(data)} bytes, its rows need {rows.nbytes}")
        flat = rows.reshape(-1)
        if _SHUFFLE in applied:
            _unshuffle(data, flat.view(f"<u{rows.itemsize}"))
        else:
            flat[:] = np.frombuffer(data, self._dtype)


def _unshuffle(data: bytes | bytearray, numbers: np.ndarray) -> None:
    """Put together `numbers`, of which `data` has all lowest bytes first, then all second ones, ..."""
    planes = np.frombuffer(data, np.uint8).reshape(numbers.itemsize, -1)
    numbers[:] = planes[-1]
    for plane in planes[-2::-1]:
        np.left_shift(numbers, 8, out=numbers)
        np.bitwise_or(numbers, plane, out=numbers)


class _Edges:
    """The chunks last used in part, up to a number of bytes. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, number: int) -> np.ndarray | None:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
            return self._kept.get(number)

    def put(self, number: int, chunk: np.ndarray) -> None:
        with self._lock:
            if number in self._kept:  # another thread was quicker
                return
            self._kept[number] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > CHUNK_CACHE:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def filters_of(dataset: Any) -> tuple[int, ...] | None:
    """HDF5's numbers of the filters of an h5py dataset, in the order in which they were applied; None where they are
    others than those that `FilteredDataset` knows.
    """
    properties = dataset.id.get_create_plist()
    found = [properties.get_filter(place) for place in range(properties.get_nfilters())]
    filters = tuple(code for code, _, _, _ in found)
    widths = [values[0] for code, _, values, _ in found if code == _SHUFFLE]
    if filters not in _KNOWN or any(width != dataset.dtype.itemsize for width in widths):
        return None
    return filters
