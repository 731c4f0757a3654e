"""The passes of BatchNorm over a feature matrix as one numba kernel on CPU threads, and what lies between them as
small ones; `plain_rows` says what each computes.

The reductions are summed per worker over fixed blocks of rows, then over the workers in order: repeatable at
a fixed number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from hpcreco.compiling import compiled
from hpcreco.sparse import epilogue
from hpcreco.sparse.jit import array, launch, workers

BLOCK = 512
SMALL = 30_000
"""Numbers in a matrix up to which one thread is faster than several."""


def moments(x: Tensor) -> Tensor:
    """See plain_rows.moments."""
    matrix, sums = array(x), np.zeros((workers(), 2, x.shape[1]))
    nothing = np.empty(0, matrix.dtype)
    _launch(epilogue.MOMENTS, matrix, matrix, matrix, [nothing] * 4, 1.0, sums)
    return torch.from_numpy(np.add.reduce(sums))


def activate(x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """See plain_rows.activate."""
    y, matrix = torch.empty_like(x, memory_format=torch.contiguous_format), array(x)
    line = [array(scale), array(shift)]
    _launch(epilogue.ACTIVATE, y.numpy(), matrix, matrix, line * 2, leakiness)
    return y


def gradient_moments(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """See plain_rows.gradient_moments."""
    matrix, sums = array(grad), np.zeros((workers(), 2, x.shape[1]))
    line = [array(scale), array(shift)]
    _launch(epilogue.GRADIENT_MOMENTS, matrix, matrix, array(x), line * 2, leakiness, sums)
    return torch.from_numpy(np.add.reduce(sums))


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
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    written = array(out)
    given = written[:0] if out is grad else array(grad)
    _launch(
        epilogue.GRADIENT,
        written,
        given,
        array(x),
        [array(v) for v in (scale, shift, slope, offset)],
        leakiness,
    )
    return out


def line(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See plain_rows.line."""
    scale, shift = torch.empty_like(weight), torch.empty_like(weight)
    _line(array(weight), array(bias), array(mean), array(variance), eps, scale.numpy(), shift.numpy())
    return scale, shift


def coefficients(sums: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See plain_rows.coefficients."""
    gain, c = array(weight), len(weight)
    wide, narrow, statistics = np.empty((4, c)), np.empty((2, c), gain.dtype), np.empty(1 + 2 * c)
    _coefficients(array(sums), gain, array(bias), eps, wide, narrow, statistics)
    return torch.from_numpy(wide), torch.from_numpy(narrow), torch.from_numpy(statistics)


def parameter_gradients(local: Tensor, wide: Tensor) -> Tensor:
    """See plain_rows.parameter_gradients."""
    total = np.empty((2, local.shape[1]))
    _parameter_gradients(array(local), array(wide), total)
    return torch.from_numpy(total)


def slopes(total: Tensor, wide: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """See plain_rows.slopes."""
    through = torch.empty(2, total.shape[1], dtype=dtype)
    _slopes(array(total), array(wide), array(sums), through.numpy())
    return through


def remember(mean: Tensor, variance: Tensor, statistics: Tensor, change: float) -> None:
    """See plain_rows.remember."""
    _remember(array(mean), array(variance), array(statistics), change)


def _launch(
    task: int,
    out: np.ndarray,
    grad: np.ndarray,
    x: np.ndarray,
    lines: list[np.ndarray],
    leakiness: float,
    sums: np.ndarray | None = None,
) -> None:
    sums = np.empty((workers(), 0, 0)) if sums is None else sums
    launch(_pass, task, out, grad, x, *lines, leakiness, sums, small=x.size < SMALL)


@compiled(parallel=True)
def _pass(task, out, grad, x, scale, shift, slope, offset, leakiness, sums):
    """One pass over the rows; sums (workers, 2, C), read for the number of workers if for nothing else. For GRADIENT,
    grad (0, C) if out holds it already.
    """
    n, leak, n_workers = x.shape[0], x.dtype.type(leakiness), sums.shape[0]
    n_blocks = (n + BLOCK - 1) // BLOCK
    for worker in prange(n_workers):
        for block in range(worker, n_blocks, n_workers):
            first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
            if task == epilogue.MOMENTS:
                epilogue.add_moments(sums[worker], x, first, last)
            elif task == epilogue.ACTIVATE:
                epilogue.activate_into(out, x, scale, shift, leak, first, last)
            elif task == epilogue.GRADIENT_MOMENTS:
                epilogue.add_gradient_moments(sums[worker], grad, x, scale, shift, leak, first, last)
            else:
                if grad.shape[0]:
                    epilogue.copy(out, grad, first, last)
                epilogue.gradient(out, x, scale, shift, slope, offset, leak, first, last)


@compiled()
def _line(weight, bias, mean, variance, eps, scale, shift):
    for c in range(weight.size):
        factor = weight[c] / np.sqrt(variance[c] + eps)
        scale[c] = factor
        shift[c] = bias[c] - mean[c] * factor


@compiled()
def _coefficients(sums, weight, bias, eps, wide, narrow, statistics):
    channels, count = weight.size, max(sums[0], 1.0)
    statistics[0] = sums[0]
    for c in range(channels):
        mean = sums[1 + c] / count
        variance = max(sums[1 + channels + c] / count - mean * mean, 0.0)
        inverse = 1 / np.sqrt(variance + eps)
        scale = np.float64(weight[c]) * inverse
        shift = np.float64(bias[c]) - mean * scale
        wide[0, c], wide[1, c], wide[2, c], wide[3, c] = scale, shift, mean, inverse
        narrow[0, c], narrow[1, c] = scale, shift
        statistics[1 + c], statistics[1 + channels + c] = mean, variance


@compiled()
def _parameter_gradients(local, wide, total):
    for c in range(local.shape[1]):
        total[0, c] = local[0, c]
        total[1, c] = (local[1, c] - wide[2, c] * local[0, c]) * wide[3, c]


@compiled()
def _slopes(total, wide, sums, through):
    count = max(sums[0], 1.0)
    for c in range(total.shape[1]):
        slope = -wide[0, c] * wide[3, c] * total[1, c] / count
        through[0, c] = slope
        through[1, c] = -wide[0, c] * total[0, c] / count - slope * wide[2, c]


@compiled()
def _remember(mean, variance, statistics, change):
    rows, channels = statistics[0], mean.size
    if rows > 0:
        for c in range(channels):
            mean[c] += change * (statistics[1 + c] - mean[c])
            unbiased = statistics[1 + channels + c] * rows / max(rows - 1, 1.0)
            variance[c] += change * (unbiased - variance[c])
