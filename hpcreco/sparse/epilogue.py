"""What is done to the rows of a feature matrix a few at a time, so that they are still in cache: the passes of a batch
normalisation, by themselves (`nn.rows`) or after a convolution has made a tile of rows. `nn.plain_rows` says what each
computes.

LLVM makes slow loops of two matrices that are the same: what changes a matrix in place takes it once. A row of the
matrix that is written, or read again after it was, may be longer than there are channels.
"""

from __future__ import annotations

import numpy as np

from hpcreco.compiling import inner

NOTHING, ACTIVATE, MOMENTS, GRADIENT_MOMENTS, GRADIENT = range(5)
"""What is done; the last by itself only, since it needs sums over all rows."""


@inner
def copy(y, x, first, last):
    """Rows first:last of y from those of x."""
    for row in range(first, last):
        for c in range(x.shape[1]):
            y[row, c] = x[row, c]


@inner
def activate(y, scale, shift, leak, first, last):
    """Rows first:last of y, in place."""
    for row in range(first, last):
        for c in range(scale.size):
            v = y[row, c] * scale[c] + shift[c]
            y[row, c] = v if v > 0 else v * leak


@inner
def activate_into(y, x, scale, shift, leak, first, last):
    """Rows first:last of y from those of x, another matrix."""
    for row in range(first, last):
        for c in range(scale.size):
            v = x[row, c] * scale[c] + shift[c]
            y[row, c] = v if v > 0 else v * leak


@inner
def add_moments(total, x, first, last):
    """Adds to total (2, C) float64."""
    for row in range(first, last):
        for c in range(total.shape[1]):
            v = np.float64(x[row, c])
            total[0, c] += v
            total[1, c] += v * v


@inner
def add_gradient_moments(total, grad, x, scale, shift, leak, first, last):
    """Adds to total (2, C) float64."""
    for row in range(first, last):
        for c in range(total.shape[1]):
            v = x[row, c]
            g = grad[row, c]
            g = np.float64(g if v * scale[c] + shift[c] > 0 else g * leak)
            total[0, c] += g
            total[1, c] += g * v


@inner
def gradient(grad, x, scale, shift, slope, offset, leak, first, last):
    """Rows first:last of grad, in place."""
    for row in range(first, last):
        for c in range(scale.size):
            v = x[row, c]
            g = grad[row, c]
            g = g if v * scale[c] + shift[c] > 0 else g * leak
            grad[row, c] = g * scale[c] + v * slope[c] + offset[c]
