"""Open HDF5 files for reading; what goes wrong names the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcreco.shards.schema import ShardError

CHUNK_CACHE = 1 << 20  # bytes per dataset: the edge chunk between neighbouring events, no more


@contextlib.contextmanager
def reading(path: Path, name: str = "") -> Iterator[None]:
    """Turn what HDF5 raises on a damaged file into a ShardError that names file and dataset."""
    try:
        yield
    except (
        OSError,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:  # as the damage happens to hit
        if isinstance(error, ShardError):
            raise
        what = f"{path}: {name}" if name else str(path)
        reason = str(error).splitlines()[0].strip("'\"") if str(error) else type(error).__name__
        raise ShardError(f"{what} cannot be read ({reason}); the file is damaged, make it again") from error


def open_hdf5(path: Path) -> Any:
    """Open for reading by many processes at once, also where the file system is read-only or knows no
    locks.
    """
    import h5py

    if not path.is_file():
        raise ShardError(f"{path}: no such file")
    try:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNK_CACHE)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ShardError(
            f"{path}: not a readable HDF5 file, truncated or of another kind ({reason})"
        ) from error


def fill(file_descriptor: int, part: memoryview, address: int) -> None:
    """Read the bytes from `address` on into all of `part`. Raises OSError where the file ends too early."""
    done = 0
    while done < len(part):  # one call returns at most 2 GiB
        count = os.preadv(file_descriptor, [part[done:]], address + done)
        if count == 0:
            raise OSError("the file ends inside this dataset")
        done += count
