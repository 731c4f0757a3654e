"""Keep HDF5 away from a full disk.

When a write fails while HDF5 flushes or closes a file, the library is left inconsistent and may crash the process
later (seen with HDF5 2.0: a segmentation fault at exit). So space is reserved before HDF5 writes, where running out is
an ordinary OSError, and a file that cannot be finished is closed onto memory.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

_MARGIN = 1 << 18  # bytes: metadata that HDF5 writes besides the data it is given


def reserve(file: Any, n_bytes: int = 0) -> None:
    """Make sure that `n_bytes` more and the metadata fit on the disk. Raises OSError (ENOSPC, EDQUOT, EFBIG)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.id.get_vfd_handle(), 0, file.id.get_filesize() + n_bytes + _MARGIN)


def close_trimmed(file: Any) -> None:
    """Close a flushed file and give back what was reserved beyond its end."""
    path, size = file.filename, file.id.get_filesize()
    file.close()
    os.truncate(path, size)


def abandon(file: Any) -> None:
    """Close a file that shall not be finished, without touching the disk again."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        descriptor = file.id.get_vfd_handle()
        with tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else _memory() as substitute:
            os.dup2(substitute.fileno(), descriptor)
    with contextlib.suppress(OSError, RuntimeError):
        file.close()


def _memory() -> Any:
    return os.fdopen(os.memfd_create("hpcreco-abandoned"), "w+b")
