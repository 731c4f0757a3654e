"""Reads the batches of coming steps in background threads."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType

from hpcreco.data.batch import Batch
from hpcreco.data.dataset import EventDataset
from hpcreco.data.sharing import Share

_CLOSE_SECONDS = 5.0  # a read that hangs longer is left to the end of the process


class Loader:
    """Yields (share, its micro-batches) for each share, in order, reading `prefetch` shares ahead.

    workers: threads that read and collate, 0 to read in the caller's. Threads and not processes: a fork after
    MPI_Init is not safe. What is yielded does not depend on workers or prefetch. An error of a worker is
    raised here when its share's turn comes. waited: seconds the caller has spent waiting for data.
    """

    def __init__(
        self, dataset: EventDataset, shares: Iterable[Share], workers: int = 1, prefetch: int = 2
    ) -> None:
        self.waited = 0.0
        self._dataset, self._shares = dataset, iter(shares)
        self._ahead = prefetch + 1 if workers else 1
        self._ordered: deque[tuple[Share, list[Future[Batch]]]] = deque()
        self._work: queue.SimpleQueue[tuple[Future[Batch], Share, int] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"hpcreco-read-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[tuple[Share, list[Batch]]]:
        while self._schedule():
            share, pending = self._ordered.popleft()
            began = time.perf_counter()
            if not self._threads:
                self._work_off(len(pending))
            batches = [future.result() for future in pending]
            self.waited += time.perf_counter() - began
            yield share, batches

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is not yet read and end the threads; a read in progress is waited for a few seconds."""
        for _, pending in self._ordered:
            for future in pending:
                future.cancel()
        self._ordered.clear()
        self._shares = iter(())
        for _ in self._threads:
            self._work.put(None)
        end = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads.clear()

    def _schedule(self) -> bool:
        """Hand out shares until enough are on their way; False when none is left."""
        while len(self._ordered) < self._ahead and (share := next(self._shares, None)) is not None:
            pending: list[Future[Batch]] = [Future() for _ in share.micro_batches]
            self._ordered.append((share, pending))
            for number, future in enumerate(pending):
                self._work.put((future, share, number))
        return bool(self._ordered)

    def _serve(self) -> None:
        while (task := self._work.get()) is not None:
            self._make(*task)

    def _work_off(self, count: int) -> None:
        for _ in range(count):
            task = self._work.get()
            assert task is not None
            self._make(*task)

    def _make(self, future: Future[Batch], share: Share, number: int) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._dataset.batch(*share.micro_batches[number], share.draw))
        except BaseException as error:  # noqa: BLE001  (raised again where the result is asked for)
            future.set_exception(error)
