"""The passes of BatchNorm over a feature matrix as numba kernels on CPU threads; `plain_rows` says what each
computes.

The reductions are summed per worker over fixed blocks of rows, then over the workers in order: repeatable at
a fixed number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from hpcreco.sparse import epilogue
from hpcreco.sparse.jit import compiled, launch, workers

BLOCK = 512
SMALL = 30_000
"""Numbers in a matrix up to which one thread is faster than several."""


def moments(x: Tensor) -> Tensor:
    """See plain_rows.moments."""
    partial = np.zeros((workers(), 2, x.shape[1]))
    launch(_moments, _array(x), partial, small=x.numel() < SMALL)
    return torch.from_numpy(partial.sum(0))


def activate(x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """See plain_rows.activate."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    launch(
        _activate,
        _array(y),
        _array(x),
        _array(scale),
        _array(shift),
        leakiness,
        workers(),
        small=x.numel() < SMALL,
    )
    return y


def gradient_moments(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """See plain_rows.gradient_moments."""
    partial = np.zeros((workers(), 2, x.shape[1]))
    launch(
        _gradient_moments,
        _array(grad),
        _array(x),
        _array(scale),
        _array(shift),
        leakiness,
        partial,
        small=x.numel() < SMALL,
    )
    return torch.from_numpy(partial.sum(0))


def gradient(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    slope: Tensor,
    offset: Tensor,
    leakiness: float,
    out: Tensor | None = None,
) -> Tensor:
    """See plain_rows.gradient; written to `out` where it is given, which may be grad."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    vectors = [_array(v) for v in (scale, shift, slope, offset)]
    launch(
        _gradient,
        _array(out),
        _array(grad),
        _array(x),
        *vectors,
        leakiness,
        workers(),
        small=x.numel() < SMALL,
    )
    return out


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@compiled(parallel=True)
def _moments(x, partial):
    n, n_workers = x.shape[0], partial.shape[0]
    n_blocks = (n + BLOCK - 1) // BLOCK
    for worker in prange(n_workers):
        for block in range(worker, n_blocks, n_workers):
            epilogue.add_moments(partial[worker], x, block * BLOCK, min(n, (block + 1) * BLOCK))


@compiled(parallel=True)
def _activate(y, x, scale, shift, leakiness, n_workers):
    n, leak = x.shape[0], x.dtype.type(leakiness)
    n_blocks = (n + BLOCK - 1) // BLOCK
    for worker in prange(n_workers):
        for block in range(worker, n_blocks, n_workers):
            epilogue.activate(y, x, scale, shift, leak, block * BLOCK, min(n, (block + 1) * BLOCK))


@compiled(parallel=True)
def _gradient_moments(grad, x, scale, shift, leakiness, partial):
    n, leak, n_workers = x.shape[0], x.dtype.type(leakiness), partial.shape[0]
    n_blocks = (n + BLOCK - 1) // BLOCK
    for worker in prange(n_workers):
        for block in range(worker, n_blocks, n_workers):
            first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
            epilogue.add_gradient_moments(partial[worker], grad, x, scale, shift, leak, first, last)


@compiled(parallel=True)
def _gradient(out, grad, x, scale, shift, slope, offset, leakiness, n_workers):
    n, channels = x.shape
    leak = x.dtype.type(leakiness)
    n_blocks = (n + BLOCK - 1) // BLOCK
    for worker in prange(n_workers):
        for block in range(worker, n_blocks, n_workers):
            for row in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
                for c in range(channels):
                    v = x[row, c]
                    g = grad[row, c]
                    g = g if v * scale[c] + shift[c] > 0 else g * leak
                    out[row, c] = g * scale[c] + v * slope[c] + offset[c]
