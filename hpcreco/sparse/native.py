"""The native backend: numba kernels on CPU tensors, Triton kernels on GPUs, torch operations on any other device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hpcreco.sparse import epilogue, kernels, paths, simd
from hpcreco.sparse.jit import array, launch, workers
from hpcreco.sparse.maps import KernelMap, TiledMap, TiledPairs, strided_map, submanifold_map
from hpcreco.sparse.tables import TableMap
from hpcreco.sparse.tensor import Triple, unpack

SMALL = 1_000_000
"""Multiplications of a convolution up to which one thread is faster than several."""


class NativeSites:
    """Active sites in the order of their packed coordinates; every kernel map is built once and shared by all
    layers of the level. path: which code does the work, see paths.py; None: by device and environment.
    """

    def __init__(
        self, coords: Tensor, keys: Tensor, stride: Triple = (1, 1, 1), path: str | None = None
    ) -> None:
        self.coords = coords
        self.stride = stride
        self._path = path or paths.choose(coords.device)
        self._keys = keys
        self._submanifold: dict[Triple, KernelMap] = {}
        self._strided: dict[tuple[Triple, Triple], tuple[NativeSites, TiledMap | TableMap]] = {}

    @staticmethod
    def require() -> None:
        """Nothing: this backend is always there."""

    @classmethod
    def build(cls, coords: Tensor, keys: Tensor) -> tuple[NativeSites, None]:
        """Sites of sorted distinct coordinates and their keys; their order is kept."""
        return cls(coords, keys), None

    def submanifold(
        self, features: Tensor, weight: Tensor, kernel: Triple, base: Tensor | None = None
    ) -> Tensor:
        """out(s) = base(s) + sum over offsets of in(s + offset) @ weight[offset], over active s + offset."""
        return convolution(features, weight, self.pairs(kernel, None), base)

    def pairs(self, kernel: Triple, stride: Triple | None) -> KernelMap:
        """The map of a submanifold convolution, or of one with a stride."""
        if stride is not None:
            return self._next(kernel, stride)[1]
        if kernel not in self._submanifold:
            self._submanifold[kernel] = submanifold_map(self._keys, kernel, self._path)
        return self._submanifold[kernel]

    def coarser(self, kernel: Triple, stride: Triple) -> NativeSites:
        """The sites of the next level: where a window of `kernel` cells every `stride` cells holds an active
        site.
        """
        return self._next(kernel, stride)[0]

    def down(self, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple) -> Tensor:
        """Features of these sites -> features of `coarser(kernel, stride)`."""
        return convolution(features, weight, self._next(kernel, stride)[1])

    def up(self, features: Tensor, weight: Tensor, kernel: Triple, stride: Triple) -> Tensor:
        """Features of `coarser(kernel, stride)` -> features of these sites."""
        return convolution(features, weight, self._next(kernel, stride)[1].exchanged())

    def _next(self, kernel: Triple, stride: Triple) -> tuple[NativeSites, TiledMap | TableMap]:
        if (kernel, stride) not in self._strided:
            keys, pairs = strided_map(self.coords, kernel, stride, self._path)
            x, y, z = (a * b for a, b in zip(self.stride, stride, strict=True))
            self._strided[kernel, stride] = NativeSites(unpack(keys), keys, (x, y, z), self._path), pairs
        return self._strided[kernel, stride]


def convolution(features: Tensor, weight: Tensor, pairs: KernelMap, base: Tensor | None = None) -> Tensor:
    """base + features convolved with weight (K, C_in, C_out) over the pairs; (N_out, C_out)."""
    if not isinstance(pairs, TiledMap):
        return pairs.convolution(features, weight, base)
    features = features.to(weight.dtype)  # under autocast too: the kernels know float32 and float64 only
    base = None if base is None else base.to(weight.dtype)
    if not torch.is_grad_enabled():
        return convolve(features, weight, pairs.forth, base)[0]
    return TiledConvolution.apply(features, weight, base, pairs)


class TiledConvolution(torch.autograd.Function):
    """The convolution by the numba kernels, with gradients of features, weight and base."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, base: Tensor | None, pairs: TiledMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        return convolve(features, weight, pairs.forth, base)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            of_features, _ = input_gradient(grad, weight, ctx.pairs)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(features, grad, ctx.pairs.forth)
        return of_features, of_weight, grad if ctx.needs_input_grad[2] else None, None


@dataclass(frozen=True)
class After:
    """What a convolution does to each tile of its output; `kernels.convolve` says what the values mean."""

    task: int
    scale: Tensor | None = None
    shift: Tensor | None = None
    leakiness: float = 1.0
    beside: Tensor | None = None


NOTHING = After(epilogue.NOTHING)
MOMENTS = After(epilogue.MOMENTS)
NO_SUMS = torch.empty(0)


def convolve(
    x: Tensor, weight: Tensor, pairs: TiledPairs, base: Tensor | None = None, after: After = NOTHING
) -> tuple[Tensor, Tensor]:
    """base + x convolved with weight (K, C_in, C_out), with what `after` says done to it; its sums (2, C_out)
    float64 where `after` takes any.
    """
    lanes, width = simd.lanes(x.dtype), weight.shape[2]
    matrices = array(_padded(weight, lanes))
    out = x.new_empty(pairs.n_out, matrices.shape[2])
    nothing = np.empty((0, matrices.shape[2]), matrices.dtype)
    scale, shift = (
        np.empty(0, matrices.dtype) if v is None else array(v) for v in (after.scale, after.shift)
    )
    summed = after.task in (epilogue.MOMENTS, epilogue.GRADIENT_MOMENTS)
    sums = np.zeros((workers() if summed else 0, 2, width))
    launch(
        kernels.convolve,
        *(array(out), array(x), matrices),
        *(pairs.starts, pairs.pair_out, pairs.pair_in),
        nothing if base is None else array(_padded(base, lanes)),
        after.task,
        nothing if after.beside is None else array(after.beside),
        *(scale, shift),
        after.leakiness,
        sums,
        workers(),
        lanes,
        small=pairs.count * x.shape[1] * width < SMALL,
    )
    narrow = out if out.shape[1] == width else out[:, :width].contiguous()
    return narrow, torch.from_numpy(np.add.reduce(sums)) if summed else NO_SUMS


def input_gradient(
    grad: Tensor, weight: Tensor, pairs: TiledMap, after: After = NOTHING
) -> tuple[Tensor, Tensor]:
    """The gradient at the input of a convolution, from the one at its output; with sums as of `convolve`."""
    matrices = array(weight)
    # copied by numpy, in a third of torch's time
    exchanged = np.ascontiguousarray((matrices[::-1] if pairs.mirrored else matrices).transpose(0, 2, 1))
    return convolve(grad, torch.from_numpy(exchanged), pairs.back, None, after)


def weight_gradient(x: Tensor, grad: Tensor, pairs: TiledPairs) -> Tensor:
    """Sum over the pairs (o, i) of outer(x[i], grad[o]); (K, C_in, C_out)."""
    lanes, width = simd.lanes(x.dtype), grad.shape[1]
    grad = _padded(grad, lanes)
    small = pairs.count * x.shape[1] * width < SMALL
    total = x.new_empty(pairs.starts.shape[1] - 1, x.shape[1], grad.shape[1])
    partial = x.new_empty(0 if small else workers() - 1, *total.shape)
    arguments = (*map(array, (total, partial, x, grad)), pairs.starts, pairs.pair_out, pairs.pair_in)
    launch(kernels.weight_gradient, *arguments, lanes, small=small)
    return total[..., :width]


def _padded(tensor: Tensor, lanes: int) -> Tensor:
    """Zero columns added until the width is a multiple of a register's."""
    missing = -tensor.shape[-1] % lanes
    return F.pad(tensor, (0, missing)) if missing else tensor
