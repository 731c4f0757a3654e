"""Read unfiltered datasets with plain file reads.

HDF5 costs about 30 us per selection and copies chunk by chunk under one lock of the whole process. Where a
dataset is stored as it is in memory, its rows are byte ranges of the file: reading them directly is about as
fast as a memory map and lets threads read at the same time.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np


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
            self._fill(part, self._addresses[chunk] + (first - chunk * self._chunk) * self._row_bytes)
            first = last
        return rows

    def _fill(self, part: memoryview, address: int) -> None:
        done = 0
        while done < len(part):  # one call returns at most 2 GiB
            count = os.preadv(self._fd, [part[done:]], address + done)
            if count == 0:
                raise OSError("the file ends inside this dataset")
            done += count


def direct(file_descriptor: int, dataset: Any) -> DirectDataset | None:
    """A direct reader of an h5py dataset, or None where its bytes in the file are not its rows in order."""
    identifier = dataset.id
    native = dataset.dtype.isnative and dataset.dtype.kind in "iuf"
    if not native or dataset.shape[0] == 0 or identifier.get_create_plist().get_nfilters():
        return None
    if dataset.chunks is None:
        address = identifier.get_offset()
        return (
            None
            if address is None
            else DirectDataset(file_descriptor, dataset, {0: address}, dataset.shape[0])
        )
    chunk = dataset.chunks[0]
    if tuple(dataset.chunks[1:]) != tuple(dataset.shape[1:]):
        return None
    addresses: dict[int, int] = {}
    identifier.chunk_iter(lambda info: addresses.__setitem__(info.chunk_offset[0] // chunk, info.byte_offset))
    if len(addresses) != -(-dataset.shape[0] // chunk):  # a chunk nobody wrote has no address
        return None
    return DirectDataset(file_descriptor, dataset, addresses, chunk)
