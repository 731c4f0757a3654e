"""A stack of layers over all DOMs, most of which see one DOM at a time.

Rows lie DOM first: (M, B, C) for M DOMs, B hypotheses, C channels. So the first layer, in which every DOM has weights
of its own, is one batched matrix product, and the layers that all DOMs share are one plain product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {
    "": None,
    "linear": None,
    "elu": F.elu,
    "gelu": F.gelu,
    "leaky": F.leaky_relu,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
}
METHODS = ("locally_connected", "convolution")
_RESIDUAL = 0.001  # factor on a layer's own output before training


@dataclass(frozen=True)
class LayerSpec:
    """size: of the kernel over (strings, DOMs of a string), odd; rate: of dropout."""

    width: int
    method: str = "convolution"
    activation: str = "elu"
    size: tuple[int, int] = (1, 1)
    residual: bool = False
    rate: float = 0.0
    batch_norm: bool = False


class Network(nn.Module):
    """(M, B, n_inputs) -> (M, B, width of the last layer), in the precision of the weights."""

    def __init__(self, n_inputs: int, layers: Sequence[LayerSpec], grid: tuple[int, int]) -> None:
        super().__init__()
        widths = [n_inputs, *(layer.width for layer in layers)]
        self.layers = nn.ModuleList(
            Layer(before, layer, grid) for before, layer in zip(widths[:-1], layers, strict=True)
        )
        self.mixes_doms = any(layer.size != (1, 1) for layer in layers)
        #: numbers stored for one DOM and hypothesis when gradients are wanted
        self.row_size = 2 * sum(widths)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.layers[0].weight.dtype)
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    """activation(W x + b), then dropout; with `residual`, x + s · that on the channels that both have."""

    def __init__(self, n_inputs: int, spec: LayerSpec, grid: tuple[int, int]) -> None:
        super().__init__()
        self.spec, self.grid = spec, grid
        fan_in = n_inputs * spec.size[0] * spec.size[1]
        n_doms = grid[0] * grid[1]
        local = (n_doms,) if spec.method == "locally_connected" else ()
        self.weight = nn.Parameter(torch.empty(*local, fan_in, spec.width))
        self.bias = nn.Parameter(torch.zeros(*local, spec.width))
        nn.init.trunc_normal_(
            self.weight, std=1 / math.sqrt(fan_in), a=-2 / math.sqrt(fan_in), b=2 / math.sqrt(fan_in)
        )
        self.shared = min(n_inputs, spec.width)
        if spec.residual:
            self.factor = nn.Parameter(torch.full((self.shared,), _RESIDUAL))
        if spec.batch_norm:
            self.norm = nn.BatchNorm1d(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        y = self._linear(x if self.spec.size == (1, 1) else self._neighbours(x))
        if self.spec.batch_norm:
            y = self.norm(y.reshape(-1, self.spec.width)).reshape(y.shape)
        activation = ACTIVATIONS[self.spec.activation]
        if activation is not None:
            y = activation(y)
        if self.spec.rate:
            y = F.dropout(y, self.spec.rate, self.training)
        if not self.spec.residual:
            return y
        if (
            x.shape[-1] == y.shape[-1]
        ):  # a slice of everything would cost a copy of zeros in the backward pass
            return torch.addcmul(x, self.factor, y)
        if x.shape[-1] > y.shape[-1]:
            return torch.addcmul(x[..., : self.shared], self.factor, y)
        own, new = y.split([self.shared, y.shape[-1] - self.shared], dim=-1)
        return torch.cat([torch.addcmul(x, self.factor, own), new], dim=-1)

    def _linear(self, x: Tensor) -> Tensor:
        if self.spec.method == "locally_connected":
            return torch.baddbmm(self.bias[:, None], x, self.weight)
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)

    def _neighbours(self, x: Tensor) -> Tensor:
        """(M, B, C) -> (M, B, C · size): what a kernel sees around each DOM, 0 beyond the edge."""
        strings, doms = self.grid
        image = x.reshape(strings, doms, *x.shape[1:]).permute(2, 3, 0, 1)
        padding = (self.spec.size[0] // 2, self.spec.size[1] // 2)
        return F.unfold(image, self.spec.size, padding=padding).permute(2, 0, 1)
