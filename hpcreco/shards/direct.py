"""Read datasets with plain file reads.

HDF5 costs about 30 us per selection and copies chunk by chunk under one lock of the whole process. Where a
dataset is stored as it is in memory, its rows are byte ranges of the file: reading them directly is about as
fast as a memory map and lets threads read at the same time. `shards.filtered` does the same behind filters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcreco.shards.access import fill
from hpcreco.shards.filtered import FilteredDataset, Stored, filters_of


class DirectDataset:
    """Byte addresses of an unfiltered dataset's rows."""

    def __init__(self, file_descriptor: int, dataset: Any, addresses: dict[int, int], chunk: int) -> None:
        self._fd = file_descriptor
        self._dtype = np.dtype(dataset.dtype.str)  # h5py's carries metadata and prints oddly
        self._tail = dataset.shape[1:]
        self._row_bytes = dataset.dtype.itemsize * int(np.prod(self._tail, dtype=np.int64))
        self._addresses = addresses
        self._chunk = chunk

    def read(self, lo: int, hi: int) -> np.ndarray:
        """Rows lo..hi-1. Raises OSError where the file ends too early."""
        rows = np.empty((hi - lo, *self._tail), self._dtype)
        if rows.size == 0:
            return rows
        view = memoryview(rows.reshape(-1).view(np.uint8))
        first = lo
        while first < hi:
            chunk = first // self._chunk
            last = min(hi, (chunk + 1) * self._chunk)
            part = view[(first - lo) * self._row_bytes : (last - lo) * self._row_bytes]
            fill(self._fd, part, self._addresses[chunk] + (first - chunk * self._chunk) * self._row_bytes)
            first = last
        return rows


class Hdf5Dataset:
    """What only HDF5 can read."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def read(self, lo: int, hi: int) -> np.ndarray:
        """Rows lo..hi-1. Raises what h5py raises."""
        rows: np.ndarray = self._dataset[lo:hi]
        return rows


def reader_of(file_descriptor: int, dataset: Any) -> DirectDataset | FilteredDataset | Hdf5Dataset:
    """What reads the rows of an h5py dataset: without HDF5 where its bytes in the file are its rows in order, as they
    are or behind the standard filters.
    """
    return _direct(file_descriptor, dataset) or Hdf5Dataset(dataset)


def _direct(file_descriptor: int, dataset: Any) -> DirectDataset | FilteredDataset | None:
    identifier = dataset.id
    if not dataset.dtype.isnative or dataset.dtype.kind not in "iuf" or dataset.shape[0] == 0:
        return None
    if dataset.chunks is None:
        address = identifier.get_offset()
        return (
            None
            if address is None
            else DirectDataset(file_descriptor, dataset, {0: address}, dataset.shape[0])
        )
    filters, rows = filters_of(dataset), dataset.chunks[0]
    if filters is None or tuple(dataset.chunks[1:]) != tuple(dataset.shape[1:]):
        return None
    chunks: dict[int, Stored] = {}

    def note(info: Any) -> None:
        chunks[info.chunk_offset[0] // rows] = Stored(info.byte_offset, info.size, info.filter_mask)

    identifier.chunk_iter(note)
    if len(chunks) != -(-dataset.shape[0] // rows):  # a chunk nobody wrote has no address
        return None
    if filters:
        return FilteredDataset(file_descriptor, dataset, filters, chunks)
    addresses = {number: chunk.address for number, chunk in chunks.items()}
    return DirectDataset(file_descriptor, dataset, addresses, rows)
