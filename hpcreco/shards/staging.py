"""Copies of shards on storage of their own, unpacked: their events are read as plain bytes, wherever the originals are.

A copy is named after its content, appears complete or not at all, and is taken again by whoever needs that content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.shards.access import open_hdf5, reading
from hpcreco.shards.space import abandon, close_trimmed, reserve
from hpcreco.shards.temporary import atomic
from hpcreco.shards.writer import LIBVER, writing

_BLOCK = 1 << 24  # bytes copied at a time


def staged_path(folder: Path, path: str | os.PathLike[str], digest: str) -> Path:
    """Where the copy of the shard `path` with this content digest stands in `folder`."""
    return folder / f"{digest[:16]}-{Path(path).name}"


def unpacked_size(path: Path) -> int:
    """Bytes of a shard's datasets without filters."""
    with open_hdf5(path) as file, reading(path):
        return sum(dataset.size * dataset.dtype.itemsize for _, dataset in _datasets(file))


def unpack(source: Path, target: Path) -> None:
    """Copy a shard: the same datasets and attributes, without chunks and filters.

    Raises ShardError for a source that cannot be read and a target that cannot be written, a full disk included.
    """
    import h5py

    with open_hdf5(source) as original, writing(target), atomic(target) as temporary:
        copy = h5py.File(temporary, "w", libver=LIBVER, locking=False)
        try:
            _attributes(original, copy)
            for name, dataset in _datasets(original):
                _copy(source, dataset, copy, name)
            for name in original:
                _attributes(original[name], copy.require_group(name))
            copy.flush()
            close_trimmed(copy)
        except BaseException:
            abandon(copy)
            raise


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """All of them, by "table/field"."""
    for table, group in file.items():
        for field, dataset in group.items():
            yield f"{table}/{field}", dataset


def _copy(source: Path, dataset: Any, copy: Any, name: str) -> None:
    reserve(copy, dataset.size * dataset.dtype.itemsize)
    new = copy.create_dataset(name, dataset.shape, dataset.dtype)
    _attributes(dataset, new)
    rows = max(1, _BLOCK // max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))))
    rows = max(rows // dataset.chunks[0], 1) * dataset.chunks[0] if dataset.chunks else rows
    for start in range(0, dataset.shape[0] if dataset.size else 0, rows):
        with reading(source, name):
            block = dataset[start : start + rows]
        new[start : start + rows] = block


def _attributes(source: Any, target: Any) -> None:
    """All attributes, in the types they have."""
    for name, value in source.attrs.items():
        stored = source.attrs.get_id(name)
        target.attrs.create(name, value, stored.shape, stored.dtype)
