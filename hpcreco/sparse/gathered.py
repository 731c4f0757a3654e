"""Convolution over a table of neighbours in torch operations, for any device: the neighbours' features are gathered
side by side and multiplied at once. No atomic sums, so the order of every sum is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hpcreco.sparse import tables
from hpcreco.sparse.tables import Table


def convolve(x: Tensor, weight: Tensor, table: Table, base: Tensor | None, dtype: torch.dtype) -> Tensor:
    """base + x (n_in, C_in) convolved with weight (K, C_in, C_out) over the table; (n_out, C_out) of `dtype`."""
    matrix = weight.reshape(-1, weight.shape[2])
    out = x.new_empty(table.n_out, weight.shape[2], dtype=dtype)
    for rows, around in _neighbours(x, table):
        product = (around @ matrix).to(dtype)
        out[rows] = product if base is None else base[rows] + product
    return out


def weight_gradient(x: Tensor, grad: Tensor, table: Table) -> Tensor:
    """Sum over the table's pairs (o, i) of outer(x[i], grad[o]); (K, C_in, C_out), float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    total = x.new_zeros(len(table.rows) * x.shape[1], grad.shape[1], dtype=wide)
    for rows, around in _neighbours(x, table):
        total += (around.t() @ grad[rows]).to(wide)
    return total.view(-1, x.shape[1], grad.shape[1])


def _neighbours(x: Tensor, table: Table) -> Iterator[tuple[slice | Tensor, Tensor]]:
    """Some output rows at a time, and for each the features of all its neighbours, zeros for none: (n, K * C_in)."""
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])  # row -1
    width = len(table.rows) * x.shape[1]
    at_a_time = max(1, tables.GATHERED_BYTES // (width * x.element_size()))
    for first in range(0, table.n_out, at_a_time):
        part = slice(first, first + at_a_time)
        around = padded[table.rows[:, part].t()].flatten(1)
        yield part if table.order is None else table.order[part].long(), around
