"""Batch normalisation over the rows of a feature matrix, with its activation, and optionally over the rows
of all ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hpcreco.nn import plain_rows
from hpcreco.sparse import paths

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks and returns the sum; every rank calls it the same number of times."""


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the rows of x (N, C), then x if x > 0 else
    leakiness * x.

    keep: fraction of the old running mean and variance that survives a training step (0.99 is torch's
    momentum 0.01).
    leakiness: 0 for ReLU, 1 for no activation.
    reduce: if set, mean and variance are those of the rows of all ranks, and so is their part of the
    gradient. Every rank then has to run every training step forward and backward, with no rows if it has
    none.
    With no rows at all the running statistics stay as they are and all gradients are zero. The running
    variance is the unbiased estimate (as in torch); with one row it is zero.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        eps: float = 1e-4,
        keep: float = 0.99,
        leakiness: float = 0.0,
        reduce: Reduce | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.keep, self.leakiness, self.reduce = eps, keep, leakiness, reduce
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, moments: Tensor | None = None) -> Tensor:
        """(N, C) -> (N, C), normalised and activated. moments: see `plain_rows.moments`, where x's are known."""
        x = x.to(self.weight.dtype)  # under autocast too: statistics of narrow numbers are no good
        if not self.training:
            return activate(x, *self.line(), self.leakiness)
        y, statistics = Normalise.apply(
            x, self.weight, self.bias, self.eps, self.leakiness, self.reduce, moments
        )
        self.remember(statistics)
        return y

    def line(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) by the running statistics."""
        engine = plain_rows if torch.is_grad_enabled() else _engine(self.weight)
        return engine.line(self.weight, self.bias, self.running_mean, self.running_var, self.eps)

    def remember(self, statistics: Tensor) -> None:
        """Move the running statistics towards those of a step; see `plain_rows.remember`."""
        _engine(statistics).remember(self.running_mean, self.running_var, statistics, 1 - self.keep)


def synchronise(module: nn.Module, reduce: Reduce | None) -> None:
    """Make every BatchNorm in `module` use the rows of all ranks, by `reduce`; None: of this rank alone."""
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.reduce = reduce


def activate(x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """leaky ReLU of x * scale + shift, in one pass without gradients; (N, C), (C,), (C,) -> (N, C)."""
    if not torch.is_grad_enabled():
        return _engine(x).activate(x.contiguous(), scale, shift, leakiness)
    y = x * scale + shift
    return y if leakiness == 1 else torch.nn.functional.leaky_relu(y, leakiness)


class Normalise(torch.autograd.Function):
    """Training-mode normalisation and activation. Sums are taken in float64 and in a fixed order.

    With u = (x - mean) / sqrt(var + eps), y = u * weight + bias and g the gradient at y, the gradient at x is
    weight / sqrt(var + eps) * (g - sum(g) / n - u * sum(g * u) / n), with sums and n over all ranks (Ioffe
    and Szegedy, 1502.03167).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        leakiness: float,
        reduce: Reduce | None,
        moments: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        x = x.detach().contiguous()
        sums = all_sums(x, _engine(x).moments(x) if moments is None else moments, reduce)
        wide, narrow, statistics = _engine(x).coefficients(sums, weight, bias, eps)
        y = _engine(x).activate(x, *narrow, leakiness)
        ctx.save_for_backward(x, wide, narrow, sums)
        ctx.leakiness, ctx.reduce, ctx.dtype = leakiness, reduce, weight.dtype
        ctx.mark_non_differentiable(statistics)
        return y, statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, wide, narrow, sums = ctx.saved_tensors
        grad = grad.contiguous()
        # (2, C): sums over the rows of g and of g * x, g the gradient before the activation
        local = _engine(x).gradient_moments(grad, x, *narrow, ctx.leakiness)
        total = _engine(x).parameter_gradients(local, wide)
        of_bias, of_weight = total
        if ctx.reduce is not None:
            total = ctx.reduce(total)
        # scale * (g - total0 / n - (x - mean) * inverse * total1 / n) = scale * g + slope * x + offset
        through = _engine(x).slopes(total, wide, sums, x.dtype)
        of_x = _engine(x).gradient(grad, x, *narrow, *through, ctx.leakiness)
        return of_x, of_weight.to(ctx.dtype), of_bias.to(ctx.dtype), None, None, None, None


def all_sums(x: Tensor, moments: Tensor, reduce: Reduce | None) -> Tensor:
    """(rows, sums of x..., sums of x * x...) float64 over all ranks."""
    sums = torch.cat([x.new_full((1,), len(x), dtype=torch.float64), moments.flatten()])
    return sums if reduce is None else reduce(sums)


def _engine(x: Tensor) -> Any:
    """The module whose passes over a matrix, and what lies between them, are used on its device."""
    path = paths.choose(x.device)
    if path == "numba":
        from hpcreco.nn import rows

        return rows
    if path == "triton":
        from hpcreco.nn import gpu_rows

        return gpu_rows
    return plain_rows
