"""Layers on sparse tensors. No layer has a bias; weights are (K, C_in, C_out), offsets in lexicographic
order, in every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpcreco.sparse.tensor import Sites, SparseError, SparseTensor, Triple

Route = tuple[Sites, Any]


def triple(value: int | Sequence[int]) -> Triple:
    """One number for all three axes, or one per axis."""
    x, y, z = (value,) * 3 if isinstance(value, int) else value
    return x, y, z


def _weight(kernel: Triple, c_in: int, c_out: int) -> nn.Parameter:
    """He's normal initialisation with every kernel offset counted as an input."""
    volume = kernel[0] * kernel[1] * kernel[2]
    return nn.Parameter(torch.randn(volume, c_in, c_out) * (2 / (volume * c_in)) ** 0.5)


class SubmanifoldConv(nn.Module):
    """Convolution whose output sites are its input sites; kernel sizes are odd."""

    def __init__(self, c_in: int, c_out: int, kernel: int | Sequence[int] = 3) -> None:
        super().__init__()
        self.kernel = triple(kernel)
        if any(size % 2 == 0 for size in self.kernel):
            raise SparseError(f"a submanifold convolution needs odd kernel sizes, got {self.kernel}")
        self.weight = _weight(self.kernel, c_in, c_out)

    def forward(self, x: SparseTensor, base: Tensor | None = None) -> SparseTensor:
        """base (N, C_out), if given, is added to the result (a residual block's other branch)."""
        return x.replace(x.sites.submanifold(x.features, self.weight, self.kernel, base))

    def route(self, x: SparseTensor, base: Tensor | None = None) -> Route:
        """The sites of the output and the map onto them; see `Sites.pairs`."""
        return x.sites, x.sites.pairs(self.kernel, None)


class DownConv(nn.Module):
    """Strided convolution: output sites are the windows that hold an active site."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int | Sequence[int], stride: int | Sequence[int]
    ) -> None:
        super().__init__()
        self.kernel, self.stride = triple(kernel), triple(stride)
        self.weight = _weight(self.kernel, c_in, c_out)

    def forward(self, x: SparseTensor) -> SparseTensor:
        coarser = x.sites.coarser(self.kernel, self.stride)
        return SparseTensor(x.sites.down(x.features, self.weight, self.kernel, self.stride), coarser)

    def route(self, x: SparseTensor) -> Route:
        """See SubmanifoldConv.route."""
        return x.sites.coarser(self.kernel, self.stride), x.sites.pairs(self.kernel, self.stride)


class UpConv(nn.Module):
    """Transposed strided convolution, back onto the sites from which a DownConv of the same kernel and
    stride came.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int | Sequence[int], stride: int | Sequence[int]
    ) -> None:
        super().__init__()
        self.kernel, self.stride = triple(kernel), triple(stride)
        self.weight = _weight(self.kernel, c_in, c_out)

    def forward(self, x: SparseTensor, onto: SparseTensor) -> SparseTensor:
        self._check(x, onto)
        return onto.replace(onto.sites.up(x.features, self.weight, self.kernel, self.stride))

    def route(self, x: SparseTensor, onto: SparseTensor) -> Route:
        """See SubmanifoldConv.route."""
        self._check(x, onto)
        pairs = onto.sites.pairs(self.kernel, self.stride)
        return onto.sites, pairs.exchanged() if pairs is not None else None

    def _check(self, x: SparseTensor, onto: SparseTensor) -> None:
        if onto.sites.coarser(self.kernel, self.stride) is not x.sites:
            raise SparseError("UpConv: x does not live on the sites below `onto` with this kernel and stride")
