"""Where libraries keep what they compile and download, when their usual place cannot be written.

In a container image the package is read-only, and often there is no home: an unknown user, a folder that is not
mounted. numba would then compile every kernel at every start, and other libraries warn or fail.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import MutableMapping
from pathlib import Path


def settle(environment: MutableMapping[str, str] = os.environ, package: Path = Path(__file__).parent) -> None:
    """Points ``NUMBA_CACHE_DIR`` and ``HOME`` into ``$TMPDIR`` (default /tmp) where they would be of no use.

    numba's cache goes there when ``package`` is read-only (its next choice, the home, is shared by all nodes of a
    cluster) and nothing is set; the home when it is missing or cannot be written.
    """
    homeless = not _writable(Path(environment.get("HOME") or "/nonexistent"))
    uncached = "NUMBA_CACHE_DIR" not in environment and not _writable(package)
    if not (homeless or uncached):
        return
    try:
        place = _private_folder(Path(tempfile.gettempdir()) / f"hpcreco-{os.getuid()}")
    except OSError:  # nothing can be written anywhere; doctor says so
        return
    if homeless:
        environment["HOME"] = str(place)
    if uncached:
        environment["NUMBA_CACHE_DIR"] = str(place / "numba")


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)


def _private_folder(folder: Path) -> Path:
    """``folder``, or a fresh one if somebody else holds that name: compiled code from there is executed."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
