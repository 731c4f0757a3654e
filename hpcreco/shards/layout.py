"""Names and shapes of a file's tables, found once with few calls of HDF5.

h5py's own objects cost five times as much to make as the file takes to tell: an index of many shards asks each of them
for nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.shards.access import reading


class Layout:
    """The tables of an open HDF5 file; path: what errors name, a copy is opened under another."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path
        self.tables = tuple(name.decode() for name in _group(file, "/"))
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def shapes(self, table: str) -> dict[str, tuple[int, ...]]:
        """Of all datasets of a table, `offsets` included; none where there is no such table."""
        if table not in self.tables:
            return {}
        if table not in self._shapes:
            group = _group(self._file, table)
            self._shapes[table] = {name.decode(): self._shape(group, table, name) for name in group}
        return self._shapes[table]

    def _shape(self, group: Any, table: str, name: bytes) -> tuple[int, ...]:
        import h5py

        with reading(self._path, f"{table}/{name.decode()}"):
            shape: tuple[int, ...] = h5py.h5d.open(group, name).shape
            return shape


def numbers(file: Any, name: str) -> np.ndarray:
    """All of a small dataset of integers, as int64."""
    import h5py

    dataset = h5py.h5d.open(file.id, name.encode())
    values = np.empty(dataset.shape, np.int64)
    if values.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def _group(file: Any, name: str) -> Any:
    import h5py

    return h5py.h5g.open(file.id, name.encode())
