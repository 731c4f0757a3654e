"""The operations over the processes of an MPI communicator, through mpi4py."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hpcreco.world import WorldError

_REQUEST, _REPLY = 71, 72  # message tags of `take`, on a communicator of its own
_POLL_SECONDS = 0.002


class Mpi:
    """The processes of an MPI communicator, through mpi4py."""

    def __init__(self, communicator: Any) -> None:
        self._comm = communicator
        self.rank: int = communicator.Get_rank()
        self.size: int = communicator.Get_size()

    def sum(self, array: np.ndarray) -> np.ndarray:
        array = np.array(array, order="C")
        described = self._comm.allgather((array.shape, array.dtype.str))
        if len(set(described)) > 1:
            raise WorldError(f"ranks add arrays of different shapes or types: {described}")
        parts = np.empty((self.size, array.size), array.dtype)
        self._comm.Allgather(array.reshape(-1).view(np.uint8), parts.reshape(-1).view(np.uint8))
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total.reshape(array.shape)

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        return self._comm.gather(obj, root=root)

    def broadcast(self, obj: Any, root: int = 0) -> Any:
        return self._comm.bcast(obj, root=root)

    @contextmanager
    def progressing(self) -> Iterator[None]:
        over = threading.Event()

        def poll() -> None:
            while not over.wait(_POLL_SECONDS):
                self._comm.iprobe()

        poller = threading.Thread(target=poll, name="hpcreco-progress", daemon=True)
        poller.start()
        try:
            yield
        finally:
            over.set()
            poller.join()

    def alltoall(self, objs: list[Any]) -> list[Any]:
        if len(objs) != self.size:
            raise WorldError(f"alltoall needs one object per rank ({self.size}), got {len(objs)}")
        return self._comm.alltoall(objs)

    def barrier(self) -> None:
        self._comm.Barrier()

    def abort(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(code)

    def take(self, n: int) -> Generator[int, None, None]:
        from mpi4py import MPI

        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise WorldError(
                "this MPI has no MPI_THREAD_MULTIPLE, which serving work needs; use --schedule size"
            )
        comm = self._comm.Dup()
        try:
            yield from (_served(comm, n) if self.rank == 0 else _requested(comm))
        finally:
            comm.Free()


def _requested(comm: Any) -> Generator[int, None, None]:
    """Ask rank 0 for one number after another, until it answers -1."""
    number = 0
    try:
        while True:
            comm.send(True, dest=0, tag=_REQUEST)
            number = comm.recv(source=0, tag=_REPLY)
            if number < 0:
                return
            yield number
    finally:
        if number >= 0:  # left early: rank 0 must not wait for this rank's next request
            comm.send(False, dest=0, tag=_REQUEST)


def _served(comm: Any, n: int) -> Generator[int, None, None]:
    """Work on rank 0 while a thread of it serves the others from the same counter."""
    from mpi4py import MPI

    counter = iter(range(n))
    lock = threading.Lock()

    def following() -> int:
        with lock:
            return next(counter, -1)

    def serve() -> None:
        waiting = comm.Get_size() - 1
        status = MPI.Status()
        while waiting:
            if not comm.iprobe(source=MPI.ANY_SOURCE, tag=_REQUEST, status=status):
                time.sleep(_POLL_SECONDS)  # a blocking receive would spin on a core that the work needs
                continue
            more = comm.recv(source=status.source, tag=_REQUEST)
            number = following() if more else -1
            if more:
                comm.send(number, dest=status.source, tag=_REPLY)
            waiting -= number < 0

    server = threading.Thread(target=serve, name="hpcreco-take", daemon=True)
    server.start()
    try:
        while (number := following()) >= 0:
            yield number
    finally:
        with lock:
            counter = iter(())
        server.join()
