"""What ranks do together, and a world of one that does it alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import numpy as np

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
