"""An event in chunks of slices, which workers take as they become free.

They take them inside compiled code: to come back to Python for the next one is to wait for whoever holds the GIL,
for milliseconds where that is HDF5 reading a filtered dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcreco.experiments.protodune.tiling.scratch import lone

try:
    import numba.extending
    from llvmlite import ir
except ImportError:
    numba = None

_PER_THREAD = 64  # with 32, a thread waits up to 0.4 ms for the last chunk of the other; with 64, 0.1 ms


class Chunks(NamedTuple):
    """Chunk c is the coarse slices [edges[c], edges[c + 1])."""

    edges: np.ndarray  # int64 (n + 1,)
    taken: np.ndarray  # int64 (1,), how many of them are
    rows: np.ndarray  # int64 (n, 3): the worker that tiled the chunk, its first and past-the-last row there


def chunks(n_slices: int, threads: int) -> Chunks:
    """Chunks of an event of `n_slices` coarse slices."""
    n = min(n_slices, 1 if threads == 1 else threads * _PER_THREAD)
    edges = np.linspace(0, n_slices, n + 1).astype(np.int64)
    return Chunks(edges, lone(1, np.int64), np.zeros((n, 3), np.int64))


def in_order(chunks: Chunks, of_worker: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of all chunks, in order, from those that each worker made."""
    if len(of_worker) == 1:
        return of_worker[0]
    return np.concatenate([of_worker[worker][first:last] for worker, first, last in chunks.rows.tolist()])


def _take(counter: Any) -> Any:
    """The value of counter[0], int64, and one more in its place; no two threads are given the same."""
    value = counter[0]
    counter[0] += 1
    return value


def _atomic(typing: Any, counter: Any) -> tuple[Any, Callable]:
    """The same as one instruction."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return numba.types.int64(counter), code


take = _take if numba is None else numba.extending.intrinsic(_atomic)
