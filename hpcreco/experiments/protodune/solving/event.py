"""One event solved: its slices shared out over processes, each slice the same whoever solves it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.geometry import Face
from hpcreco.experiments.protodune.solving import methods
from hpcreco.experiments.protodune.solving.equations import ChannelSums, equations

ALGORITHM_VERSION = 1  # raise when the same input gives other charges: finished files become stale
_CHUNKS_PER_PROCESS = 4  # some slices cost far more than others


@dataclass(frozen=True)
class SolveOptions:
    """What decides the charges beside geometry, cells and waveforms.

    method : nnls, ols or lasso; alpha : the penalty of lasso
    downsample : fine voxels per cell; dead_channels : local channels whose equations are left out
    """

    method: str = "nnls"
    alpha: float = methods.ALPHA
    downsample: tuple[int, int, int] = (8, 4, 4)
    dead_channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Solved:
    """Charges of an event's cells, and how well they explain the wires.

    charge : float64 (N,) electrons, in the order of the cells
    used : (P,) charge that the channels of the equations saw, by plane in the face's order
    explained : (P,) charge that the solution gives these channels
    misfit : root of the sum of squared differences over root of the sum of squared charges, 0 without charge
    """

    charge: np.ndarray
    used: np.ndarray
    explained: np.ndarray
    misfit: float


@dataclass(frozen=True)
class Solver:
    """Solves events of one face, here or by the `processes` of a pool."""

    face: Face
    options: SolveOptions
    pool: Executor | None = None
    processes: int = 1

    def solve(self, cells: np.ndarray, sums: ChannelSums) -> Solved:
        """Charges of `cells`, int (N, 3) sorted by x, given what the channels saw."""
        bounds = _chunks(cells[:, 0], self.processes * _CHUNKS_PER_PROCESS if self.pool else 1)
        parts = [
            (self.face, self.options, cells[a:b], sums.of_slices(int(cells[a, 0]), int(cells[b - 1, 0]) + 1))
            for a, b in bounds
        ]
        done = list((self.pool.map if self.pool else map)(_solve_part, parts))
        return _joined(done, len(self.face.planes))


@contextmanager
def pool(processes: int) -> Iterator[Executor | None]:
    """Processes to solve with, started when they are first needed; None for one.

    They start afresh ("spawn"): a fork of an MPI process may hang. Threads would not do, as most of a solve holds
    the interpreter's lock.
    """
    if processes < 2:
        yield None
        return
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _chunks(x: np.ndarray, wanted: int) -> list[tuple[int, int]]:
    """Up to `wanted` ranges of rows of about the same length which divide no slice."""
    starts = np.flatnonzero(np.diff(x, prepend=x[0] - 1)) if len(x) else np.zeros(0, int)
    if (np.diff(x) < 0).any():
        raise ValueError("cells must be sorted by x")
    goals = np.arange(wanted) * len(x) / wanted
    edges = (
        np.unique(starts[np.minimum(np.searchsorted(starts, goals), len(starts) - 1)]) if len(x) else starts
    )
    return list(zip(edges.tolist(), [*edges[1:].tolist(), len(x)], strict=True)) if len(x) else []


@dataclass(frozen=True)
class _Part:
    """What one process found for its slices; the sums are per slice, so that no chunking changes their order."""

    charge: np.ndarray
    slices: np.ndarray  # (n,)
    used: np.ndarray  # (n, P)
    explained: np.ndarray  # (n, P)
    squares: np.ndarray  # (n, 2) of residual and of charge


def _solve_part(part: tuple[Face, SolveOptions, np.ndarray, ChannelSums]) -> _Part:
    from threadpoolctl import threadpool_limits

    face, options, cells, sums = part
    system = equations(face, cells, sums, options.downsample[1:], options.dead_channels)
    with threadpool_limits(1):  # more threads would add in another order, and gain nothing on small systems
        charge = methods.solve(system, options.method, options.alpha)
    given = system.matrix @ charge
    slices, at = np.unique(system.slices, return_inverse=True)

    def per_slice(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, len(slices))

    planes = [np.isin(system.channels, plane.channels) for plane in face.planes]
    return _Part(
        charge,
        slices,
        np.stack([per_slice(system.charge * of) for of in planes], 1),
        np.stack([per_slice(given * of) for of in planes], 1),
        np.stack([per_slice((given - system.charge) ** 2), per_slice(system.charge**2)], 1),
    )


def _joined(parts: Sequence[_Part], n_planes: int) -> Solved:
    if not parts:
        return Solved(np.zeros(0), np.zeros(n_planes), np.zeros(n_planes), 0.0)
    squares = np.concatenate([part.squares for part in parts]).sum(axis=0)
    return Solved(
        np.concatenate([part.charge for part in parts]),
        np.concatenate([part.used for part in parts]).sum(axis=0),
        np.concatenate([part.explained for part in parts]).sum(axis=0),
        float(np.sqrt(squares[0] / squares[1])) if squares[1] else 0.0,
    )
