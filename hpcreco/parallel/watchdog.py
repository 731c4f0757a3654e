"""Ends the whole job when a rank fails or makes no progress: a job that hangs costs more than one that dies."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from hpcreco.parallel import Parallel

_ABORT_SECONDS = 5.0  # for MPI to end the world before this process ends itself
_GRACE_SECONDS = 10.0  # a main thread that holds the interpreter's lock so long is ended by a C thread
#: seconds for the other ranks to print their stacks as well, which say who waited for whom, before one ends them all
_LAST_WORDS = 1.0


class Watchdog:
    """Aborts the world if `beat` is not called for `timeout` seconds; None or 0 watches nothing.

    A thread of its own watches, so a main thread that waits in a collective operation for a dead or stopped
    rank is seen. Should the main thread hang without releasing the interpreter, faulthandler's timer ends
    the process: it needs no Python.
    """

    def __init__(self, timeout: float | None, parallel: Parallel) -> None:
        self._timeout, self._parallel = timeout or 0.0, parallel
        self._last, self._step = time.monotonic(), -1
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hpcreco-watchdog", daemon=True)

    def beat(self, step: int = -1) -> None:
        """Progress was made; `step` is named in the message should it have been the last."""
        self._last, self._step = time.monotonic(), step

    def __enter__(self) -> Watchdog:
        self.beat()
        if self._timeout:
            self._arm()  # a main thread that takes the interpreter's lock at once leaves no turn to the other
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._timeout:
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        pause = min(1.0, self._timeout / 10)
        while True:
            if self._arm() <= 0:
                self._end()
            if self._done.wait(pause):
                return

    def _arm(self) -> float:
        """The seconds that are left; while there are any, the C thread is given a few more than these."""
        left = self._last + self._timeout - time.monotonic()
        if left > 0:
            faulthandler.dump_traceback_later(left + _GRACE_SECONDS, exit=True, file=_stderr())
        return left

    def _end(self) -> None:
        since = "its start" if self._step < 0 else f"step {self._step}"
        print(
            f"hpcreco: error: rank {self._parallel.rank} of {self._parallel.size} on {socket.gethostname()}: "
            f"no progress for {self._timeout:g} s since {since}; "
            "another rank may be dead or stopped, or a file system hangs. "
            "Ending the job; continue with --resume, and raise parallel.timeout if steps take so long",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=_stderr(), all_threads=True)
        time.sleep(_LAST_WORDS)
        end_world(self._parallel, 1)


@contextmanager
def abort_on_error(parallel: Parallel) -> Iterator[None]:
    """End every rank when this one fails, instead of leaving them waiting for it.

    An error that all ranks raise alike (marked `everywhere`) or the error of a single rank is passed on.
    So is SystemExit, which is how ranks end by agreement.
    """
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        if parallel.size == 1 or getattr(error, "everywhere", False):
            raise
        where = f"rank {parallel.rank} of {parallel.size} on {socket.gethostname()}"
        if hasattr(error, "exit_code"):
            print(f"hpcreco: error: {where}: {error}", file=sys.stderr, flush=True)
        else:
            print(f"hpcreco: error: {where} failed, ending the job", file=sys.stderr)
            traceback.print_exc()
        end_world(parallel, getattr(error, "exit_code", 1))


def end_world(parallel: Parallel, code: int) -> None:
    """`parallel.abort`, and the end of this process should MPI be too broken to do it."""
    last_resort = threading.Timer(_ABORT_SECONDS, os._exit, (code,))
    last_resort.daemon = True
    last_resort.start()
    parallel.abort(code)


def _stderr() -> int:
    """The process's own stderr, which also exists when a test or a notebook has replaced sys.stderr."""
    return 2
