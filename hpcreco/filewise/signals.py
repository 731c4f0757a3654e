"""Stopping a file-wise job: the file in work is abandoned, its temporaries go, finished files stay."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

EXIT_STOPPED = 75
_SOON = 0.01  # seconds
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """Raised inside the work on a file by a signal; not an Exception, so that no work mistakes it for its own
    error.
    """


class StopSignals:
    """Listens to TERM, INT, USR1 and USR2 while files are worked on. Outside the main thread it cannot, and
    does not.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._interruptible = False
        self._lost = False  # it was raised where nobody can catch it
        self._hook: CodeType | None = None  # where nobody could catch it either
        self._insisting: list[threading.Thread] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if self.received:
            return  # the process ends with 75: launchers repeat signals, and a second one must not end it otherwise
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """The block that a signal interrupts; elsewhere a signal is only remembered."""
        previous = sys.unraisablehook

        def swallowed(what: Any) -> None:
            if isinstance(what.exc_value, Stopped):
                self._repeat()
            else:
                previous(what)

        sys.unraisablehook, self._hook = swallowed, swallowed.__code__
        try:
            self._interruptible = True
            if self.received:  # it came after the last look at it
                self._interruptible = False
                raise Stopped(f"stopped by {self.received}")
            yield
        finally:
            self._interruptible = self._lost = False
            sys.unraisablehook = previous
            while self._insisting:
                self._insisting.pop().join()  # no signal comes when nobody listens any more

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name
        if self._interruptible and not self._within_hook(frame):
            # a second signal must not interrupt the clean-up after the first
            self._interruptible = self._lost = False
            raise Stopped(f"stopped by {self.received}")

    def _within_hook(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not self._hook:
            frame = frame.f_back
        return frame is not None

    def _repeat(self) -> None:
        """The signal once more: nobody can catch what was raised in a weak reference's callback, of which h5py has
        many. Again and again, as on a busy machine the main thread may still be in the hook that calls this.
        """
        self._interruptible = self._lost = True
        main, number = threading.main_thread().ident or 0, signal.Signals[str(self.received)]

        def insist() -> None:
            time.sleep(_SOON)
            while self._lost:
                signal.pthread_kill(main, number)
                time.sleep(_SOON)

        self._insisting.append(threading.Thread(target=insist, daemon=True))
        self._insisting[-1].start()
