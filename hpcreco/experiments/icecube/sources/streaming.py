"""Sums over many sources in memory that does not grow with their number, with exact gradients.

Everything a likelihood needs of sources adds up, so chunk after chunk is evaluated, added and forgotten. For the
gradients each chunk is evaluated a second time, alone, when its turn comes in the backward pass: twice the forward
work buys a graph of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hpcreco.experiments.icecube.sources.contract import Expectation

_settings = {"bytes": 128 * 2**20}


@contextmanager
def chunk_bytes(size: int):
    """Within this context, about so many bytes of activations are held at once."""
    before = _settings["bytes"]
    _settings["bytes"] = size
    try:
        yield
    finally:
        _settings["bytes"] = before


def total(expect: Callable[[Tensor], Expectation], rows: Tensor, bytes_per_source: int) -> Expectation:
    """The sum of `expect` over chunks of the sources of rows (1 | M, n, K, p), along K."""
    size = max(1, _settings["bytes"] // max(1, bytes_per_source))
    chunks = rows.split(size, dim=2)
    if len(chunks) == 1:
        return expect(rows)
    if not torch.is_grad_enabled():
        return reduce(add, map(expect, chunks))

    def fields(block: Tensor) -> tuple[Tensor, ...]:
        e = expect(block)
        return e.charge, e.variance, e.full_charge, e.rate, e.integral

    return reduce(add, (Expectation(*checkpoint(fields, chunk, use_reentrant=False)) for chunk in chunks))


def nearest(rows: Tensor, position: Tensor, count: int) -> Tensor:
    """(M, n, count, p): of the sources (1, n, K, p), the first three parameters their position, those next to each DOM.

    position: (M, 3).
    """
    where = rows[0, ..., :3].detach()
    n, k = where.shape[:2]
    chosen = []
    for block in position.split(max(1, _settings["bytes"] // (16 * n * k))):
        distance = torch.cdist(block[None].expand(n, -1, -1), where)  # (n, block, K)
        chosen.append(distance.topk(count, dim=2, largest=False).indices.transpose(0, 1))
    index = torch.cat(chosen)
    event = torch.arange(n, device=rows.device)[None, :, None]
    return rows[0][event, index]
