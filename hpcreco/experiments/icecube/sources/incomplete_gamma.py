"""P(a, x), the regularised lower incomplete Γ function, differentiable twice in both arguments.

torch differentiates `torch.special.gammainc` in x only. ∂P/∂x = x^{a−1} e^{−x} / Γ(a). ∂P/∂a has no closed form and is
taken from five neighbours in float64, to about 1e-11.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_STEP = 2e-3  # of min(a, 1): rounding and truncation are alike


def lower_gamma(a: Tensor, x: Tensor) -> Tensor:
    """P(a, x) for a > 0; 0 for x ≤ 0. Shapes must be equal."""
    return _LowerGamma.apply(a, x)


def log_density(a: Tensor, x: Tensor) -> Tensor:
    """ln (x^{a−1} e^{−x} / Γ(a)) for x > 0."""
    return (a - 1.0) * torch.log(x) - x - torch.lgamma(a)


class _LowerGamma(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, x)
        return torch.special.gammainc(a, x.clamp_min(0.0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, x = ctx.saved_tensors
        by_a = gradient * _ByShape.apply(a, x) if ctx.needs_input_grad[0] else None
        return by_a, gradient * _by_argument(a, x) if ctx.needs_input_grad[1] else None


class _ByShape(torch.autograd.Function):
    """∂P/∂a."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, x)
        p, h = _neighbours(a, x)
        return ((p[0] - p[4] + 8.0 * (p[3] - p[1])) / (12.0 * h)).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        a, x = ctx.saved_tensors
        p, h = _neighbours(a, x)
        twice = (16.0 * (p[1] + p[3]) - (p[0] + p[4]) - 30.0 * p[2]) / (12.0 * h**2)
        mixed = _by_argument(a, x) * (torch.log(x.clamp_min(torch.finfo(x.dtype).tiny)) - torch.digamma(a))
        return gradient * twice.to(a.dtype), gradient * mixed


def _by_argument(a: Tensor, x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, torch.exp(log_density(a, torch.where(positive, x, 1.0))), 0.0)


def _neighbours(a: Tensor, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """P(a + k h, x) for k = −2 … 2, and h."""
    a, x = a.double(), x.double().clamp_min(0.0)
    h = _STEP * a.clamp_max(1.0)
    return [torch.special.gammainc(a + k * h, x) for k in (-2, -1, 0, 1, 2)], h
