"""The passes of BatchNorm over a feature matrix in plain torch operations, for any device; `rows` does the
same on CPUs, faster.
"""

from __future__ import annotations

import torch
from torch import Tensor


def moments(x: Tensor) -> Tensor:
    """(N, C) -> (2, C) float64: sums over the rows of x and of x * x."""
    wide = x.double()
    return torch.stack([wide.sum(0), (wide * wide).sum(0)])


def activate(x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """y = x * scale + shift, then y if y > 0 else leakiness * y; (N, C)."""
    y = x * scale + shift
    return torch.where(y > 0, y, y * leakiness)


def gradient_moments(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """(2, C) float64: sums over the rows of g and of g * x, where g is grad taken back through the
    activation.
    """
    before = _before(grad, x, scale, shift, leakiness).double()
    return torch.stack([before.sum(0), (before * x).sum(0)])


def gradient(
    grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor, leakiness: float
) -> Tensor:
    """scale * g + slope * x + offset; (N, C)."""
    return _before(grad, x, scale, shift, leakiness) * scale + x * slope + offset


def _before(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    return torch.where(x * scale + shift > 0, grad, grad * leakiness)
