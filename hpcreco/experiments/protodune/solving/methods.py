"""Solvers of block-diagonal systems A q = s: each takes csr A (E, N), s (E,), a block number per row and per column,
and returns q (N,).

Blocks share no unknown: solving them one by one is the same and much cheaper, and what a block gives depends on
nothing but itself.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import minimize, nnls
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsmr

from hpcreco.experiments.protodune.solving.equations import Equations

LOG = logging.getLogger("hpcreco")

ALPHA = 1e-4  # Lasso: weight of sum |q| beside (1 / 2 E) |A q - s|^2
DENSE_CELLS = (
    1000  # above it the active-set method of `nnls`, cubic in the cells, is slower than the projected one
)
PROJECTED_STEPS = 500  # 3 digits of the misfit, also of 20 000 cells in one slice


class Block(NamedTuple):
    """One independent system: the `columns` (n,) it determines, its matrix csr (m, n) and charge (m,)."""

    columns: np.ndarray
    matrix: sparse.csr_matrix
    charge: np.ndarray


def solve(equations: Equations, method: str = "nnls", alpha: float = ALPHA) -> np.ndarray:
    """Charge (N,) of every cell; 0 for a cell that no equation mentions. `method` is one of METHODS."""
    return METHODS[method](equations, alpha)


def ordinary(equations: Equations, alpha: float = 0.0) -> np.ndarray:
    """Least squares of every slice, the shortest of all solutions where there are several; charges may be negative."""

    def shortest(block: Block) -> np.ndarray:
        steps = 4 * min(block.matrix.shape) + 100
        return lsmr(block.matrix, block.charge, atol=1e-12, btol=1e-12, conlim=1e12, maxiter=steps)[0]

    return _by_slice(equations, shortest)


def lasso(equations: Equations, alpha: float = ALPHA) -> np.ndarray:
    """Least squares with a penalty on the sum of the charges, none of which is negative, of every slice."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    unfinished = 0

    def penalised(block: Block) -> np.ndarray:
        nonlocal unfinished
        model = Lasso(alpha=alpha, positive=True, fit_intercept=False, tol=1e-7, max_iter=10_000)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(block.matrix.tocsc(), block.charge)
        unfinished += bool(caught)
        return model.coef_

    charge = _by_slice(equations, penalised)
    if unfinished:
        LOG.warning("lasso: %d slices not converged after 10000 steps; more cells than wires?", unfinished)
    return charge


def non_negative(equations: Equations, alpha: float = 0.0) -> np.ndarray:
    """Least squares without negative charges, for every group of cells that share channels."""
    n_rows = equations.matrix.shape[0]
    graph = sparse.bmat([[None, equations.matrix], [equations.matrix.T, None]])
    _, label = connected_components(graph, directed=False)
    return _by_block(equations, label[:n_rows], label[n_rows:], _non_negative)


def _non_negative(block: Block) -> np.ndarray:
    if block.matrix.shape[1] <= DENSE_CELLS:
        try:
            return nnls(block.matrix.toarray(), block.charge)[0]
        except RuntimeError:  # its step limit, in a degenerate system
            LOG.debug("nnls gave up on %d cells, projecting", block.matrix.shape[1])
    return _projected(block)


def _projected(block: Block) -> np.ndarray:
    """The same minimum by projected quasi-Newton steps, whose cost is that of the sparse products."""
    scale = float(np.abs(block.charge).max()) or 1.0
    matrix, transposed, seen = block.matrix, block.matrix.T.tocsr(), block.charge / scale

    def misfit(charge: np.ndarray) -> tuple[float, np.ndarray]:
        residual = matrix @ charge - seen
        return 0.5 * float((residual * residual).sum()), transposed @ residual

    start = np.zeros(matrix.shape[1])
    options = {
        "maxiter": PROJECTED_STEPS,
        "maxfun": 2 * PROJECTED_STEPS,
        "maxcor": 20,
        "ftol": 0.0,
        "gtol": 1e-9,
    }
    bounds = [(0.0, None)] * len(start)
    found = minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.maximum(found.x, 0.0) * scale


METHODS: dict[str, Callable[[Equations, float], np.ndarray]] = {
    "nnls": non_negative,
    "ols": ordinary,
    "lasso": lasso,
}


def _by_slice(equations: Equations, one: Callable[[Block], np.ndarray]) -> np.ndarray:
    slices = equations.slices
    # a column belongs to the slice of any of its rows; one without rows to none
    of_column = np.full(equations.matrix.shape[1], -1, np.int64)
    entries = equations.matrix.tocoo()
    of_column[entries.col] = slices[entries.row]
    return _by_block(equations, slices, of_column, one)


def _by_block(
    equations: Equations, of_row: np.ndarray, of_column: np.ndarray, one: Callable[[Block], np.ndarray]
) -> np.ndarray:
    charge = np.zeros(equations.matrix.shape[1])
    for block in _blocks(equations, of_row, of_column):
        if block.charge.any():  # a block that saw nothing holds nothing
            charge[block.columns] = one(block)
    return charge


def _blocks(equations: Equations, of_row: np.ndarray, of_column: np.ndarray) -> Iterator[Block]:
    """The blocks that have both rows and columns; rows and columns keep their order inside."""
    rows, columns = np.argsort(of_row, kind="stable"), np.argsort(of_column, kind="stable")
    matrix = equations.matrix[rows][:, columns].tocsr()
    matrix.sort_indices()
    charge, of_row, of_column = equations.charge[rows], of_row[rows], of_column[columns]
    numbers = np.unique(of_row)
    first_row, last_row = np.searchsorted(of_row, numbers), np.searchsorted(of_row, numbers, "right")
    first, last = np.searchsorted(of_column, numbers), np.searchsorted(of_column, numbers, "right")
    for r0, r1, c0, c1 in zip(first_row, last_row, first, last, strict=True):
        entries = slice(matrix.indptr[r0], matrix.indptr[r1])
        pointer = matrix.indptr[r0 : r1 + 1] - matrix.indptr[r0]
        shape = (r1 - r0, c1 - c0)
        block = sparse.csr_matrix((matrix.data[entries], matrix.indices[entries] - c0, pointer), shape=shape)
        yield Block(columns[c0:c1], block, charge[r0:r1])
