"""The Triton kernels of BatchNorm: passes over a feature matrix, and what lies between them for each channel.

LEAK: slope of the activation below 0. Sums over rows are taken in float64, by each program over a fixed share of the
rows, so that results do not change from run to run. Import this module on demand only: it needs triton.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moments(partial, x, n, c, share, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """partial[program] = sums of x and of x * x over the program's rows; x (n, c), partial (programs, 2, c) float64.

    share: rows per program. Programs: shares of rows x blocks of channels.
    """
    program = tl.program_id(0)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float64)
    second = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float64)
    end = tl.minimum(n, (program + 1) * share)
    for start in range(program * share, end, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        there = (rows < end)[:, None] & (channels < c)[None, :]
        value = tl.load(x + rows.to(tl.int64)[:, None] * c + channels[None, :], mask=there, other=0.0)
        wide = value.to(tl.float64)
        first += wide
        second += wide * wide
    at = partial + program * 2 * c + channels
    tl.store(at, tl.sum(first, axis=0), mask=channels < c)
    tl.store(at + c, tl.sum(second, axis=0), mask=channels < c)


@triton.jit
def gradient_moments(
    partial, grad, x, scale, shift, n, c, share,
    LEAK: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The same for sums of g and of g * x, where g is grad (n, c) taken back through the activation."""
    program = tl.program_id(0)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    factor = tl.load(scale + channels, mask=channels < c, other=0.0)[None, :]
    term = tl.load(shift + channels, mask=channels < c, other=0.0)[None, :]
    first = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float64)
    second = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.float64)
    end = tl.minimum(n, (program + 1) * share)
    for start in range(program * share, end, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        there = (rows < end)[:, None] & (channels < c)[None, :]
        at = rows.to(tl.int64)[:, None] * c + channels[None, :]
        value = tl.load(x + at, mask=there, other=0.0)
        slope = tl.load(grad + at, mask=there, other=0.0)
        before = tl.where(value * factor + term > 0, slope, slope * LEAK).to(tl.float64)
        first += before
        second += before * value.to(tl.float64)
    at = partial + program * 2 * c + channels
    tl.store(at, tl.sum(first, axis=0), mask=channels < c)
    tl.store(at + c, tl.sum(second, axis=0), mask=channels < c)


@triton.jit
def activate(out, x, scale, shift, total, c, LEAK: tl.constexpr, BLOCK: tl.constexpr):
    """out = x * scale + shift, times LEAK where that is not above 0; total: n * c entries."""
    entries = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = entries < total
    channels = (entries % c).to(tl.int32)
    factor = tl.load(scale + channels, mask=there, other=0.0)
    term = tl.load(shift + channels, mask=there, other=0.0)
    y = tl.load(x + entries, mask=there, other=0.0) * factor + term
    tl.store(out + entries, tl.where(y > 0, y, y * LEAK), mask=there)


@triton.jit
def gradient(
    out, grad, x, scale, shift, slope, offset, total, c, LEAK: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """out = scale * g + slope * x + offset, where g is grad taken back through the activation."""
    entries = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = entries < total
    channels = (entries % c).to(tl.int32)
    factor = tl.load(scale + channels, mask=there, other=0.0)
    term = tl.load(shift + channels, mask=there, other=0.0)
    value = tl.load(x + entries, mask=there, other=0.0)
    change = tl.load(grad + entries, mask=there, other=0.0)
    before = tl.where(value * factor + term > 0, change, change * LEAK)
    along = tl.load(slope + channels, mask=there, other=0.0)
    constant = tl.load(offset + channels, mask=there, other=0.0)
    tl.store(out + entries, before * factor + value * along + constant, mask=there)


@triton.jit
def coefficients(wide, narrow, statistics, sums, weight, bias, c, EPS: tl.constexpr, BLOCK: tl.constexpr):
    """See plain_rows.coefficients; one program per block of channels."""
    channels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = channels < c
    rows = tl.load(sums)
    count = tl.maximum(rows, 1.0)
    mean = tl.load(sums + 1 + channels, mask=there, other=0.0) / count
    variance = tl.load(sums + 1 + c + channels, mask=there, other=0.0) / count - mean * mean
    variance = tl.maximum(variance, 0.0)
    inverse = 1.0 / tl.sqrt(variance + EPS)
    scale = tl.load(weight + channels, mask=there, other=0.0).to(tl.float64) * inverse
    shift = tl.load(bias + channels, mask=there, other=0.0).to(tl.float64) - mean * scale
    tl.store(wide + channels, scale, mask=there)
    tl.store(wide + c + channels, shift, mask=there)
    tl.store(wide + 2 * c + channels, mean, mask=there)
    tl.store(wide + 3 * c + channels, inverse, mask=there)
    tl.store(narrow + channels, scale.to(narrow.dtype.element_ty), mask=there)
    tl.store(narrow + c + channels, shift.to(narrow.dtype.element_ty), mask=there)
    tl.store(statistics, rows)
    tl.store(statistics + 1 + channels, mean, mask=there)
    tl.store(statistics + 1 + c + channels, variance, mask=there)


@triton.jit
def slopes(narrow, total, wide, sums, c, BLOCK: tl.constexpr):
    """See plain_rows.slopes; one program per block of channels."""
    channels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = channels < c
    count = tl.maximum(tl.load(sums), 1.0)
    scale = tl.load(wide + channels, mask=there, other=0.0)
    mean = tl.load(wide + 2 * c + channels, mask=there, other=0.0)
    inverse = tl.load(wide + 3 * c + channels, mask=there, other=0.0)
    of_bias = tl.load(total + channels, mask=there, other=0.0)
    of_weight = tl.load(total + c + channels, mask=there, other=0.0)
    slope = -scale * inverse * of_weight / count
    offset = -scale * of_bias / count - slope * mean
    tl.store(narrow + channels, slope.to(narrow.dtype.element_ty), mask=there)
    tl.store(narrow + c + channels, offset.to(narrow.dtype.element_ty), mask=there)


@triton.jit
def remember(mean, variance, statistics, c, CHANGE: tl.constexpr, BLOCK: tl.constexpr):
    """Moves running mean and variance (c,) towards those of a step by CHANGE of the way, if it had rows."""
    channels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = channels < c
    rows = tl.load(statistics)
    change = (rows > 0).to(tl.float64) * CHANGE
    now = tl.load(statistics + 1 + channels, mask=there, other=0.0)
    unbiased = (
        tl.load(statistics + 1 + c + channels, mask=there, other=0.0) * rows / tl.maximum(rows - 1, 1.0)
    )
    old = tl.load(mean + channels, mask=there, other=0.0).to(tl.float64)
    tl.store(mean + channels, (old + change * (now - old)).to(mean.dtype.element_ty), mask=there)
    old = tl.load(variance + channels, mask=there, other=0.0).to(tl.float64)
    tl.store(variance + channels, (old + change * (unbiased - old)).to(variance.dtype.element_ty), mask=there)
