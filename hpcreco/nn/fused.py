"""A normalisation and the convolution after it as one operation, where numba kernels do the work.

In training the convolution takes the sums that the next normalisation needs while its output is in cache, and so does
its way back; the activated features are not kept but made again on the way back, so that a layer keeps one matrix
instead of two; small ones are kept. In inference the output of a convolution is normalised and activated in place.
Elsewhere, for layers in evaluation mode that gradients pass and for modules with hooks, they are called one after the
other: the results are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hpcreco.nn import rows
from hpcreco.nn.normalisation import BatchNorm, Reduce, all_sums
from hpcreco.sparse import DownConv, SparseTensor, SubmanifoldConv, UpConv, epilogue, native
from hpcreco.sparse.maps import TiledMap


def convolved(
    norm: BatchNorm, conv: SubmanifoldConv | DownConv | UpConv, x: SparseTensor, **where: Any
) -> SparseTensor:
    """conv(norm(x), **where); where: base or onto, as the convolution takes them."""
    sites, pairs = conv.route(x, **where)
    if not (isinstance(pairs, TiledMap) and norm.training) or _watched(norm, conv):
        return conv(x.replace(norm(x.features, x.moments)), **where)
    base, dtype = where.get("base"), conv.weight.dtype
    y, statistics, moments = NormalisedConvolution.apply(
        x.features.to(dtype),
        norm.weight,
        norm.bias,
        conv.weight,
        None if base is None else base.to(dtype),
        pairs,
        (norm.eps, norm.leakiness, norm.reduce, x.moments),
    )
    norm.remember(statistics)
    return SparseTensor(y, sites, moments)


def activated(conv: SubmanifoldConv, norm: BatchNorm, x: SparseTensor) -> SparseTensor:
    """norm(conv(x))."""
    sites, pairs = conv.route(x)
    alone = norm.training or torch.is_grad_enabled() or _watched(norm, conv)
    if alone or not isinstance(pairs, TiledMap):
        y = conv(x)
        return y.replace(norm(y.features))
    scale, shift = (v.to(conv.weight.dtype) for v in norm.line())
    after = native.After(epilogue.ACTIVATE, scale, shift, norm.leakiness)
    features = x.features.to(conv.weight.dtype)
    return SparseTensor(native.convolve(features, conv.weight, pairs.forth, after=after)[0], sites)


def _watched(*modules: nn.Module) -> bool:
    """Whether a module has hooks, which want it to be called."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")  # torch has no other way to ask
    return any(getattr(module, kind) for module in modules for kind in kinds)


Settings = tuple[float, float, Reduce | None, Tensor | None]
"""eps, leakiness, sum over ranks, moments of the input where they are known."""


class NormalisedConvolution(torch.autograd.Function):
    """base + convolution of the normalised and activated features; also what the normalisation remembers and the
    moments of the output.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        bias: Tensor,
        weight: Tensor,
        base: Tensor | None,
        pairs: TiledMap,
        settings: Settings,
    ) -> tuple[Tensor, Tensor, Tensor]:
        eps, ctx.leakiness, ctx.reduce, moments = settings
        x = x.detach().contiguous()
        sums = all_sums(x, rows.moments(x) if moments is None else moments, ctx.reduce)
        wide, line, remembered = rows.coefficients(sums, gain, bias, eps)
        scale, shift = line.to(x.dtype)
        active = rows.activate(x, scale, shift, ctx.leakiness)
        y, of_output = native.convolve(active, weight, pairs.forth, base, native.MOMENTS)
        kept = active if x.numel() < rows.SMALL else None  # what takes no room is not made again
        ctx.save_for_backward(x, kept, weight, wide, scale, shift, sums)
        ctx.pairs, ctx.dtype = pairs, gain.dtype
        ctx.mark_non_differentiable(remembered, of_output)
        return y, remembered, of_output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor, __: Tensor) -> tuple[Tensor | None, ...]:
        x, active, weight, wide, scale, shift, sums = ctx.saved_tensors
        grad = grad.contiguous()
        of_x = of_gain = of_bias = of_weight = None
        if ctx.needs_input_grad[3]:
            if active is None:
                active = rows.activate(x, scale, shift, ctx.leakiness)
            of_weight = native.weight_gradient(active, grad, ctx.pairs.forth)
            del active
        if any(ctx.needs_input_grad[:3]):
            after = native.After(epilogue.GRADIENT_MOMENTS, scale, shift, ctx.leakiness, x)
            of_active, local = native.input_gradient(grad, weight, ctx.pairs, after)
            total = rows.parameter_gradients(local, wide)
            of_bias, of_gain = total.to(ctx.dtype)
            total = total if ctx.reduce is None else ctx.reduce(total)
            slope, offset = rows.slopes(total, wide, sums, x.dtype)
            of_x = rows.gradient(of_active, x, scale, shift, slope, offset, ctx.leakiness, out=of_active)
        return of_x, of_gain, of_bias, of_weight, grad if ctx.needs_input_grad[4] else None, None, None
