"""Shared memory of a node, which MPICH takes without asking whether there is enough: then it dies with a signal.

Containers often have little of it (64 MB under Docker) or none.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108  (where glibc's shm_open makes its files)

# Measured with MPICH 5.0: what its own queues take for a rank, and what UCX's transport for neighbours takes besides.
_QUEUES, _UCX = 1.2e6, 4.5e6  # bytes
_UCX_START = 16e6  # bytes that UCX, between starting and settling, may want more


def settle(
    local_size: int, environment: MutableMapping[str, str] = os.environ, folder: Path = FOLDER
) -> str | None:
    """Prepares MPICH for `folder`'s size before it starts; why it could not run with that, or None.

    Where room is scarce, UCX leaves messages between neighbours to MPICH's own queues.
    """
    free = _free(folder)
    if free < local_size * _QUEUES:
        return (
            f"{folder} has room for {free / 1e6:.0f} MB, and MPICH needs {local_size * _QUEUES / 1e6:.0f} MB of shared "
            f"memory for {local_size} rank(s) of a node; docker, podman: --shm-size=1g, Apptainer: --bind {folder}"
        )
    if free < local_size * (_QUEUES + _UCX) + _UCX_START:
        environment.setdefault("UCX_TLS", "^posix")
    return None


def _free(folder: Path) -> float:
    """Bytes that may be written there."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return 0.0
    found = os.statvfs(folder)
    if not found.f_blocks:  # a tmpfs without a limit
        return math.inf
    return float(found.f_bavail * found.f_frsize)
