"""Gradients travel whole and in order, whatever the buckets; flags are or-ed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcreco.parallel.gradients import reduce_gradients
from hpcreco.parallel.serial import Serial


class Replay(Serial):
    """One of two ranks in a test without processes: records what it sends, adds what the other has sent."""

    size = 2

    def __init__(self, other: list[torch.Tensor] | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self.other, self.sent = other, []

    def sum_(self, tensors):
        self.sent = [tensor.clone() for tensor in tensors]
        for tensor, theirs in zip(tensors, self.other or [], strict=self.other is not None):
            tensor += theirs


def model(seed: int) -> nn.ModuleDict:
    torch.manual_seed(seed)
    parts = nn.ModuleDict(
        {"a": nn.Linear(3, 2), "b": nn.Linear(4, 4).double(), "c": nn.Linear(2, 2), "d": nn.Linear(2, 1)}
    )
    parts["c"].requires_grad_(False)
    for name, parameter in parts.named_parameters():
        if parameter.requires_grad and not name.startswith("d"):
            parameter.grad = torch.randn_like(parameter)
    return parts


@pytest.mark.parametrize("bucket_bytes", [1, 40, 1 << 20])
def test_every_gradient_becomes_the_sum_whatever_the_buckets(bucket_bytes):
    mine, theirs = model(1), model(2)
    theirs["a"].bias.grad = None
    mine["b"].weight.grad = None
    before = [
        {n: None if p.grad is None else p.grad.clone() for n, p in m.named_parameters()}
        for m in (mine, theirs)
    ]
    other = Replay()
    reduce_gradients(theirs.named_parameters(), other, bucket_bytes)
    reduce_gradients(mine.named_parameters(), Replay(other.sent), bucket_bytes)
    for name, parameter in mine.named_parameters():
        parts = [b[name] for b in before if b[name] is not None]
        if not parts:
            assert parameter.grad is None, name
        else:
            assert torch.equal(parameter.grad, sum(parts)), name
            assert parameter.grad.dtype == parameter.dtype


def test_buckets_hold_one_dtype_and_their_limit():
    ranks = Replay()
    reduce_gradients(model(1).named_parameters(), ranks, 24)
    # a.weight (24 bytes); a.bias, d.weight and d.bias (20); b.weight; b.bias; and a flag for each parameter
    assert [(t.numel(), t.dtype) for t in ranks.sent] == [
        (7, torch.float32),
        (8, torch.float32),
        (17, torch.float64),
        (5, torch.float64),
    ]


def test_half_precision_gradients_are_added_in_float32():
    part = nn.Linear(1, 1, bias=False).bfloat16()
    part.weight.grad = torch.tensor([[256.0]], dtype=torch.bfloat16)
    ranks = Replay([torch.tensor([1.0, 1.0])])
    reduce_gradients(part.named_parameters(), ranks)
    assert ranks.sent[0].dtype == torch.float32
    assert part.weight.grad.dtype == torch.bfloat16


def test_one_rank_sends_nothing():
    class Deaf(Serial):
        def sum_(self, tensors):
            raise AssertionError

    part = model(1)
    reduce_gradients(part.named_parameters(), Deaf(torch.device("cpu")))
