"""The passes of BatchNorm over a feature matrix in plain torch operations, for any device; `rows` does the
same on CPUs, `gpu_rows` on GPUs, faster. And what lies between the passes: numbers for each channel.
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


def line(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) by known mean and variance."""
    scale = weight * torch.rsqrt(variance + eps)
    return scale, bias - mean * scale


def coefficients(sums: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """What a step makes of its sums: (rows, sums of x..., sums of x * x...) float64; weight, bias (C,).

    Returns scale, shift, mean and 1 / sqrt(variance + eps) as (4, C) float64; scale and shift as (2, C) in the
    weight's precision; (rows, mean..., variance...) float64.
    """
    channels = len(weight)
    count = sums[0].clamp(min=1)
    mean = sums[1 : 1 + channels] / count
    variance = (sums[1 + channels :] / count - mean * mean).clamp(min=0)
    inverse = torch.rsqrt(variance + eps)
    scale = weight.double() * inverse
    shift = bias.double() - mean * scale
    wide = torch.stack([scale, shift, mean, inverse])
    return wide, wide[:2].to(weight.dtype), torch.cat([sums[:1], mean, variance])


def parameter_gradients(local: Tensor, wide: Tensor) -> Tensor:
    """Gradients of bias and weight (2, C), of this rank; local: of `gradient_moments`, wide: of `coefficients`."""
    mean, inverse = wide[2], wide[3]
    return torch.stack([local[0], (local[1] - mean * local[0]) * inverse])


def slopes(total: Tensor, wide: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """What the gradient at x takes of x and of 1 for the part of it that goes through mean and variance; (2, C).

    total (2, C): gradients of bias and weight over the rows of all ranks; wide, sums: see `coefficients`.
    """
    scale, _, mean, inverse = wide
    count = sums[0].clamp(min=1)
    slope = -scale * inverse * total[1] / count
    offset = -scale * total[0] / count - slope * mean
    return torch.stack([slope, offset]).to(dtype)


def remember(mean: Tensor, variance: Tensor, statistics: Tensor, change: float) -> None:
    """Moves running mean and variance (C,) towards those of a step by `change` of the way, if it had rows; statistics:
    (rows, mean..., variance...).
    """
    rows, channels = statistics[0], len(mean)
    # no branch on a value, so that a GPU need not be waited for
    way = (rows > 0).to(rows.dtype) * change
    unbiased = statistics[1 + channels :] * rows / (rows - 1).clamp(min=1)
    mean.copy_(mean + way * (statistics[1 : 1 + channels] - mean))
    variance.copy_(variance + way * (unbiased - variance))


def _before(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    return torch.where(x * scale + shift > 0, grad, grad * leakiness)
