"""Collective operations on numpy arrays and objects, over mpi4py or alone; never torch.

Sums are exact in the sense that matters here: all contributions are gathered and added in rank order, so that
every rank holds the same bits and a repeated run gives them again, whatever algorithm the MPI library
prefers.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from hpcreco import world as _world
from hpcreco.world import World, WorldError

_REQUEST, _REPLY = 71, 72  # message tags of `take`, on a communicator of its own
_POLL_SECONDS = 0.002
T = TypeVar("T")


class Collective(Protocol):
    """What all ranks do together. Every rank must make the same calls in the same order."""

    rank: int
    size: int

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum over ranks of equally shaped arrays, added in rank order, on every rank."""

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        """The objects of all ranks in rank order on `root`, None elsewhere."""

    def broadcast(self, obj: Any, root: int = 0) -> Any:
        """`root`'s object, on every rank."""

    def progressing(self) -> AbstractContextManager[None]:
        """Lets messages under way arrive while the block waits for other ranks by other means than MPI.

        An operation may return with messages that only further calls of MPI would send on their way (seen between
        nodes over TCP): a rank that then waits elsewhere would wait for ever.
        """

    def alltoall(self, objs: list[Any]) -> list[Any]:
        """Send objs[r] to rank r; return what each rank sent here, in rank order."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def abort(self, code: int) -> None:
        """End every process of the world now."""

    def take(self, n: int) -> Generator[int, None, None]:
        """Share out 0..n-1 on demand: each number is yielded on exactly one rank, when that rank asks for
        more.

        All ranks must enter; leaving the loop early is allowed, and on rank 0 it ends the serving for
        everyone.
        """


class Alone:
    """A world of one."""

    rank = 0
    size = 1

    def sum(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, copy=True)

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        return [obj]

    def broadcast(self, obj: Any, root: int = 0) -> Any:
        return obj

    def progressing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def alltoall(self, objs: list[Any]) -> list[Any]:
        return list(objs)

    def barrier(self) -> None:
        return None

    def abort(self, code: int) -> None:
        sys.exit(code)

    def take(self, n: int) -> Generator[int, None, None]:
        yield from range(n)


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


def connect(world: World | None = None) -> Collective:
    """The collective of the promised world: alone for one process, MPI for more.

    Raises WorldError, in one sentence naming the likely cause, when other processes came up than promised.
    """
    world = _world.detect() if world is None else world
    if world.size == 1:
        return Alone()
    promised = f"the launcher ({world.launcher}) promised {world.size} processes but"
    if world.launcher == "torchrun":
        raise WorldError(f"{promised} starts no MPI; start file-wise work with mpiexec or srun")
    try:
        MPI = _mpi(world, promised)
    except (ImportError, RuntimeError) as error:
        if isinstance(error, WorldError):
            raise
        raise WorldError(f"{promised} mpi4py does not load ({error}); see `hpcreco doctor`") from error
    real = MPI.COMM_WORLD.Get_size()
    if real != world.size:
        raise _refusal(world, f"{promised} MPI sees {real}: {_likely_cause(world)}")
    return Mpi(MPI.COMM_WORLD.Dup())


def on_root(rank: int, broadcast: Callable[[Any], Any], work: Callable[[], T]) -> T:
    """Let rank 0 do `work` and give everyone its result; an error of rank 0 is raised on every rank.

    `broadcast` sends rank 0's object to all. On the other ranks the error is marked `quiet`: it is printed once.
    """
    result: Any = None
    error: Exception | None = None
    if rank == 0:
        try:
            result = work()
        except Exception as caught:  # noqa: BLE001  (raised again on every rank)
            error = caught
    try:
        result, error = broadcast((result, error))
    except Exception:
        if error is None:
            raise
        raise error from None  # an error that cannot be sent: rank 0 raises it, the launcher ends the others
    if error is not None:
        vars(error).update(quiet=rank != 0, everywhere=True)
        raise error
    return result  # type: ignore[no-any-return]


def finish() -> None:
    """End MPI on every rank, if it was begun; all ranks call this, and none of the operations above afterwards."""
    from mpi4py import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()


def _mpi(world: World, promised: str) -> Any:
    """mpi4py's MPI, begun; what MPI_Init would end the process for is dealt with before."""
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI

    if MPI.Is_initialized():
        return MPI
    library = MPI.Get_library_version()
    if library.startswith("MPICH"):  # Cray's begins otherwise
        if _world.only_pmix() and not _speaks_pmix():
            raise _refusal(
                world, f"{promised} speaks PMIx, which this MPICH does not: {_likely_cause(world)}"
            )
        if world.launcher == "srun" and "ofi" in library:
            # MPICH 5 tells the others its UCX address with a rest of uninitialised memory in it, which may make the
            # line longer than the 1024 characters that Slurm's pmi2 reads at once; libfabric's addresses are short.
            os.environ.setdefault("MPIR_CVAR_CH4_NETMOD", "ofi")
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    return MPI


def _speaks_pmix() -> bool:
    """Whether the MPI library brought a PMIx client with it into this process."""
    try:
        return "libpmix" in Path("/proc/self/maps").read_text()
    except OSError:  # nobody can tell: MPI_Init will
        return True


def _refusal(world: World, message: str) -> WorldError:
    """An error that every rank raises and rank 0 alone says."""
    error = WorldError(message)
    vars(error).update(everywhere=True, quiet=world.rank != 0)
    return error


def _likely_cause(world: World) -> str:
    if world.launcher == "srun":
        return "write srun --mpi=pmi2 (for MPICH; another MPI may want another that `srun --mpi=list` names)"
    return "this mpiexec belongs to another MPI than mpi4py's, use the one of the same environment"
