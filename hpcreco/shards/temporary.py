"""Atomic outputs: written under a temporary name beside the target, made durable, then renamed.

The temporary name holds host and process, so that what a killed writer left can be told from what is being
written.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_NAME = re.compile(r"^\.(?P<name>.+)\.part-(?P<host>[^/]+)-(?P<pid>\d+)$")
_FOREIGN_AGE = 3600.0  # seconds without a write after which another host's temporary is taken for dead


def temporary_path(path: Path) -> Path:
    """Where this process writes what becomes `path`."""
    return path.with_name(f".{path.name}.part-{socket.gethostname()}-{os.getpid()}")


def publish(temporary: Path, path: Path) -> None:
    """Make `temporary` durable and give it its name; the folder's entry is made durable too."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some parallel file systems cannot sync a folder
            os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` on success and disappears on any exception."""
    temporary = temporary_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_dead(paths: Iterable[Path]) -> list[Path]:
    """Remove temporaries of `paths` whose writer is gone; return what was removed.

    Gone means: no such process on this host, or another host's file that nobody has written to for an hour.
    """
    wanted: dict[Path, set[str]] = {}
    for path in paths:
        wanted.setdefault(path.parent, set()).add(path.name)
    removed = []
    for folder, names in wanted.items():
        if not folder.is_dir():
            continue
        for candidate in folder.iterdir():
            match = _NAME.match(candidate.name)
            if match and match["name"] in names and _is_dead(candidate, match["host"], int(match["pid"])):
                candidate.unlink(missing_ok=True)
                removed.append(candidate)
    return removed


def _is_dead(temporary: Path, host: str, pid: int) -> bool:
    if host != socket.gethostname():
        try:
            return time.time() - temporary.stat().st_mtime > _FOREIGN_AGE
        except FileNotFoundError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
