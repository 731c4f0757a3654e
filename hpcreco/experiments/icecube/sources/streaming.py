"""Sums over many sources in memory that does not grow with their number, with exact gradients.

Everything a likelihood needs of sources adds up, so chunk after chunk is evaluated, added and forgotten. For the
gradients each chunk is evaluated a second time, alone, when its turn comes in the backward pass: twice the forward
work buys a graph of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

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


def total(
    expect: Callable[[Tensor], Expectation],
    rows: Tensor,
    bytes_per_source: int,
    weights: Sequence[Tensor] = (),
) -> Expectation:
    """The sum of `expect` over chunks of the sources of rows (1 | M, n, K, p), along K.

    weights: the tensors besides `rows` that `expect` depends on and that may want gradients.
    """
    size = max(1, _settings["bytes"] // max(1, bytes_per_source))
    chunks = rows.split(size, dim=2)
    if len(chunks) == 1:
        return expect(rows)
    if not torch.is_grad_enabled():
        return reduce(add, map(expect, chunks))
    trained = [weight for weight in weights if weight.requires_grad]
    return reduce(add, (Expectation(*_Forgotten.apply(expect, chunk, *trained)) for chunk in chunks))


class _Forgotten(torch.autograd.Function):
    """`expect` of one chunk, without its graph, which is made anew when gradients are asked for.

    torch.utils.checkpoint would keep what it recomputes for outputs that no loss uses until all chunks are done.
    """

    @staticmethod
    def forward(ctx: Any, expect: Callable[[Tensor], Expectation], rows: Tensor, *weights: Tensor) -> Any:
        ctx.expect, ctx.random = expect, torch.get_rng_state()  # for dropout
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, *weights)
        return _fields(expect(rows))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        again = torch.is_grad_enabled()  # second derivatives will be wanted
        rows, *weights = ctx.saved_tensors
        with torch.enable_grad(), torch.random.fork_rng(devices=()):
            torch.set_rng_state(ctx.random)
            if not again:
                rows = rows.detach().requires_grad_(ctx.needs_input_grad[1])
            outputs = _fields(ctx.expect(rows))
            pairs = [
                (output, gradient)
                for output, gradient in zip(outputs, gradients, strict=True)
                if gradient is not None and output.requires_grad
            ]
            inputs = [*([rows] if ctx.needs_input_grad[1] else []), *weights]
            found = list(
                torch.autograd.grad(
                    [pair[0] for pair in pairs],
                    inputs,
                    [pair[1] for pair in pairs],
                    allow_unused=True,
                    create_graph=again,
                )
            )
        of_rows = found.pop(0) if ctx.needs_input_grad[1] else None
        return None, of_rows, *found


def _fields(e: Expectation) -> tuple[Tensor, ...]:
    # an output must not be two outputs: without gaps the full charge is the charge itself
    full = e.full_charge.clone() if e.full_charge is e.charge else e.full_charge
    return e.charge, e.variance, full, e.rate, e.integral


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
