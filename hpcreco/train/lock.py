"""One run per output_dir: a lock file with a heartbeat; file locks are not reliable on parallel file systems."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

HEARTBEAT = 10.0
#: a lock whose heartbeat is older than this belongs to a dead run
STALE = 90.0
#: seconds within which a lock without content may be one that is being made
_YOUNG = 5.0


class LockError(RuntimeError):
    """Another run is training in this output_dir."""

    exit_code = 1


def _started(pid: int) -> str | None:
    """Start time of process `pid` in clock ticks, None if it does not run: tells a reused pid from the first one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _content(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def _also_name(file: Path, name: Path) -> None:
    """Give `file` the further name `name`; raises FileExistsError if that is taken."""
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:
        # a file system without hard links: an empty file takes the name, and `file` then its place
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        os.replace(file, name)


class RunLock:
    """Holds ``output_dir/.lock`` while a run trains there.

    A lock left by a killed run is taken over: at once when its process is gone from this host, otherwise when its
    heartbeat stops. A requeued job waits for its own earlier attempt (same Slurm job id) to let go.
    """

    def __init__(self, output_dir: Path, heartbeat: float = HEARTBEAT, stale: float = STALE) -> None:
        self.path = output_dir / ".lock"
        self._heartbeat, self._stale = heartbeat, stale
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID"),
        }

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.time() + 2 * self._stale
        while not self._take():
            holder = self._holder()
            ours = (
                holder is not None and holder.get("job") is not None and holder.get("job") == self._me["job"]
            )
            if holder is None and abs(self._age()) < _YOUNG:
                time.sleep(0.1)
            elif holder is None or self._dead(holder):
                self._evict(holder)
            elif not ours or time.time() > deadline:
                raise LockError(
                    f"{self.path.parent} is in use by another run (host {holder['host']}, process {holder['pid']}, "
                    f"job {holder.get('job')}); wait for it, or delete {self.path} if you are sure that it is dead"
                )
            else:
                time.sleep(min(1.0, self._heartbeat))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._holder() == self._me:
            self.path.unlink(missing_ok=True)

    def _take(self) -> bool:
        # written aside and linked into place: the lock never exists without its content
        temporary = self.path.with_name(f".lock.{self._me['host']}.{os.getpid()}")
        temporary.write_text(json.dumps(self._me))
        try:
            _also_name(temporary, self.path)
            return True
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)

    def _evict(self, dead: dict[str, Any] | None) -> None:
        # moved aside first: between looking and deleting, another process may have put its own live lock here
        aside = self.path.with_name(f".lock.evicted.{self._me['host']}.{os.getpid()}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if _content(aside) != dead:
            _also_name(aside, self.path)
        aside.unlink(missing_ok=True)

    def _holder(self) -> dict[str, Any] | None:
        return _content(self.path)

    def _dead(self, holder: dict[str, Any]) -> bool:
        here = holder["host"] == self._me["host"]
        if here and self._me["started"] is not None:  # else there is no /proc to ask
            started = _started(int(holder["pid"]))
            return started is None or started != holder["started"]
        return self._age() > self._stale

    def _age(self) -> float:
        """Seconds since the last beat; of a lock that is gone, infinitely many."""
        try:
            return time.time() - self.path.stat().st_mtime
        except OSError:
            return math.inf

    def _beat(self) -> None:
        while not self._end.wait(self._heartbeat):
            try:
                os.utime(self.path)
            except OSError:  # deleted by somebody who was sure; nothing to keep alive then
                return
