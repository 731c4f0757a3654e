"""Kernel maps for devices without numba: a table of neighbours that is built and used without waiting for the device,
and the convolution over it in torch operations. The Triton kernels of `gpu` use the same tables.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hpcreco.sparse.tensor import Triple, pack

GATHERED_BYTES = 1 << 28
"""Memory that gathered neighbours may take at a time."""
NOWHERE = torch.iinfo(torch.int64).max
"""A key that no cell has."""


@dataclass(frozen=True)
class Table:
    """The input rows that each output row is made of.

    rows (K, n_out) int32: for each kernel offset and output row the input row, -1 for none. order (n_out,) int32: the
    output row that each column of `rows` stands for; None: column i is row i. n_in: number of input rows.
    """

    rows: Tensor
    n_in: int
    order: Tensor | None = None

    @property
    def n_out(self) -> int:
        """Number of output rows."""
        return self.rows.shape[1]

    @functools.cached_property
    def tiles(self) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
        """What the Triton kernels know of each tile of columns, by tile size; they fill it in."""
        return {}


@dataclass(frozen=True)
class TableMap:
    """A kernel map and its exchange. A submanifold map is its own exchange with the offsets in opposite order
    (`mirrored`). path: "torch" or "triton".
    """

    forth: Table
    back: Table
    mirrored: bool
    path: str

    def exchanged(self) -> TableMap:
        """The map of the transposed convolution."""
        return TableMap(self.back, self.forth, self.mirrored, self.path)

    def convolution(self, features: Tensor, weight: Tensor, base: Tensor | None = None) -> Tensor:
        """base + features convolved with weight (K, C_in, C_out); (n_out, C_out) in the weight's precision.

        Under autocast the products are narrower; they are summed in float32 all the same.
        """
        device = features.device.type
        dtype = weight.dtype
        if torch.is_autocast_enabled(device) and dtype == torch.float32:
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return TableConvolution.apply(features, weight, base, self, dtype)


@dataclass(frozen=True)
class SameRows:
    """The map of a kernel of one cell: a plain matrix product."""

    def convolution(self, features: Tensor, weight: Tensor, base: Tensor | None = None) -> Tensor:
        """base + features @ weight[0], in the weight's precision."""
        out = (features.to(weight.dtype) @ weight[0]).to(weight.dtype)
        return out if base is None else base + out


class TableConvolution(torch.autograd.Function):
    """The convolution over a table, with gradients of features, weight and base. dtype: of the products' factors."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, base: Tensor | None, pairs: TableMap, dtype: torch.dtype
    ) -> Tensor:
        narrow, matrices = features.to(dtype).contiguous(), weight.to(dtype)
        ctx.save_for_backward(narrow, matrices)
        ctx.pairs, ctx.dtypes = (
            pairs,
            (features.dtype, weight.dtype, base.dtype if base is not None else None),
        )
        base = None if base is None else base.to(weight.dtype).contiguous()
        return _engine(pairs, dtype).convolve(narrow, matrices, pairs.forth, base, weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        of_features = of_weight = of_base = None
        engine, narrow = _engine(ctx.pairs, features.dtype), grad.to(features.dtype).contiguous()
        if ctx.needs_input_grad[0]:
            exchanged = (weight.flip(0) if ctx.pairs.mirrored else weight).transpose(1, 2)
            of_features = engine.convolve(narrow, exchanged, ctx.pairs.back, None, ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            of_weight = engine.weight_gradient(features, narrow, ctx.pairs.forth).to(ctx.dtypes[1])
        if ctx.needs_input_grad[2]:
            of_base = grad.to(ctx.dtypes[2])
        return of_features, of_weight, of_base, None, None


def _engine(pairs: TableMap, dtype: torch.dtype) -> ModuleType:
    """The module whose `convolve` and `weight_gradient` are used; float64 is beyond what GPUs multiply by tiles."""
    if pairs.path == "triton" and dtype != torch.float64:
        from hpcreco.sparse.gpu import launch

        return launch
    from hpcreco.sparse import gathered

    return gathered


def submanifold_map(keys: Tensor, deltas: np.ndarray, path: str) -> TableMap | SameRows:
    """The map from sorted keys (N,) to themselves; deltas (K,): key difference of each offset, symmetric about 0."""
    if len(deltas) == 1:
        return SameRows()
    steps = torch.from_numpy(deltas).to(keys.device)
    if path == "triton":
        from hpcreco.sparse.gpu import launch

        table = launch.ordered(Table(launch.neighbours(keys, steps), len(keys)))
    else:
        table = Table(neighbours(keys, steps), len(keys))
    return TableMap(table, table, mirrored=True, path=path)


def neighbours(keys: Tensor, deltas: Tensor) -> Tensor:
    """keys (N,) sorted, deltas (K,) -> (K, N) int32: the row of keys[row] + deltas[k], -1 where there is none."""
    n = len(keys)
    table = torch.empty(len(deltas), n, dtype=torch.int32, device=keys.device)
    at_a_time = max(1, GATHERED_BYTES // (32 * max(n, 1)))
    for first in range(0, len(deltas), at_a_time):
        wanted = keys + deltas[first : first + at_a_time, None]
        place = torch.searchsorted(keys, wanted).clamp_(max=max(n - 1, 0))
        table[first : first + at_a_time] = torch.where(keys[place] == wanted, place, -1)
    return table


def strided_map(
    coords: Tensor, kernel: Triple, stride: Triple, steps: np.ndarray, path: str
) -> tuple[Tensor, TableMap]:
    """Sites of the next level and the map onto them; see `maps.strided_map`. steps (K, 3): the window's cells."""
    windows = _tiling_windows if kernel == stride else _any_windows
    keys, back, n_out = windows(coords, stride, torch.from_numpy(steps).to(coords.device))
    n_in, n_offsets = len(coords), len(steps)
    rows = torch.arange(n_in, dtype=torch.int32, device=coords.device).expand(n_offsets, n_in)
    # A column more takes what lies in no window.
    forth = torch.full((n_offsets, n_out + 1), -1, dtype=torch.int32, device=coords.device)
    forth.scatter_(1, torch.where(back < 0, n_out, back).long(), rows)
    tables = Table(forth[:, :n_out].contiguous(), n_in), Table(back, n_out)
    if path == "triton":
        from hpcreco.sparse.gpu import launch

        tables = launch.ordered(tables[0]), launch.ordered(tables[1])
    return keys, TableMap(*tables, mirrored=False, path=path)


def _tiling_windows(coords: Tensor, stride: Triple, steps: Tensor) -> tuple[Tensor, Tensor, int]:
    """Windows side by side: each site lies in one. Keys of the windows, table (K, n) of windows, their number."""
    step = coords.new_tensor(stride)
    cell = torch.div(coords[:, 1:], step, rounding_mode="floor")
    x, y, z = (coords[:, 1:] - cell * step).long().unbind(1)
    place = (x * stride[1] + y) * stride[2] + z
    keys, coarse = torch.unique(pack(torch.cat([coords[:, :1], cell], 1)), return_inverse=True)
    own = torch.arange(len(steps), device=coords.device)[:, None] == place
    return keys, torch.where(own, coarse, -1).int(), len(keys)


def _any_windows(coords: Tensor, stride: Triple, steps: Tensor) -> tuple[Tensor, Tensor, int]:
    """The same for windows that overlap or leave gaps."""
    step = coords.new_tensor(stride)
    corner = coords[:, 1:] - steps.to(coords.dtype)[:, None]
    inside = ((corner >= 0) & (corner % step == 0)).all(2)
    batch = coords[:, :1].expand(len(steps), -1, 1)
    cells = torch.cat([batch, torch.div(corner, step, rounding_mode="floor")], 2).flatten(0, 1)
    wanted = torch.where(inside.flatten(), pack(cells), NOWHERE)
    keys, coarse = torch.unique(wanted, return_inverse=True)
    keys = keys[keys != NOWHERE]
    return keys, torch.where(inside, coarse.view(inside.shape), -1).int(), len(keys)
