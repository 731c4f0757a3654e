"""Gradients travel whole and in order, whatever the buckets; flags are or-ed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcreco.parallel.gradients import GradientSum, OverlapError
from hpcreco.parallel.serial import Done, Serial


class Replay(Serial):
    """One of two ranks in a test without processes: records what it sends, adds what the other has sent."""

    size = 2

    def __init__(self, other: list[torch.Tensor] | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self.other, self.sent, self.names = other, [], []

    def begin_sum_(self, tensor, name):
        self.sent.append(tensor.clone())
        self.names.append(name)
        if self.other is not None:
            tensor += self.other[len(self.sent) - 1]
        return Done()


def reduce_gradients(parameters, ranks, *arguments):
    """The sum of gradients that are all there already."""
    total = GradientSum(parameters, ranks, *arguments)
    total.finish()
    total.close()


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
    # from the last: b.bias; b.weight; d.bias, d.weight, a.bias (20 bytes); a.weight (24); and a flag for each
    assert [(t.numel(), t.dtype) for t in ranks.sent] == [
        (5, torch.float64),
        (17, torch.float64),
        (8, torch.float32),
        (7, torch.float32),
    ]
    assert ranks.names == ["0", "1", "2", "3"]


def test_half_precision_gradients_are_added_in_float32():
    part = nn.Linear(1, 1, bias=False).bfloat16()
    part.weight.grad = torch.tensor([[256.0]], dtype=torch.bfloat16)
    ranks = Replay([torch.tensor([1.0, 1.0])])
    reduce_gradients(part.named_parameters(), ranks)
    assert ranks.sent[0].dtype == torch.float32
    assert part.weight.grad.dtype == torch.bfloat16


def test_one_rank_sends_nothing():
    class Deaf(Serial):
        def begin_sum_(self, tensor, name):
            raise AssertionError

    part = model(1)
    reduce_gradients(part.named_parameters(), Deaf(torch.device("cpu")))


class Chain(nn.Module):
    """Layers used from the first to the last, so that gradients come from the last to the first."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(layers))

    def forward(self, x, skipped=()):
        for number, layer in enumerate(self.layers):
            x = x if number in skipped else torch.tanh(layer(x))
        return x.sum()


def sums_begun_by(part: nn.Module, ranks: Replay, skipped=(), **more) -> tuple[list[str], list[str]]:
    """Names of the sums that had begun when backward was over, and of all."""
    total = GradientSum(part.named_parameters(), ranks, 1, **more)
    total.begin()
    part(torch.ones(2, 3), skipped).backward()
    early = list(ranks.names)
    total.finish()
    total.close()
    return early, ranks.names


def test_sums_begin_in_one_order_during_backward():
    ranks = Replay()
    early, names = sums_begun_by(Chain(), ranks)
    assert early == names == [str(number) for number in range(8)]
    assert [t.numel() for t in ranks.sent] == [4, 10] * 4
    assert sums_begun_by(Chain(), Replay(), overlap=False) == ([], names)


def test_a_bucket_that_does_not_fill_holds_back_those_behind_it():
    """A rank that skips a layer keeps the others' order."""
    early, names = sums_begun_by(Chain(), Replay(), skipped=(1,))
    assert early == ["0", "1", "2", "3"]
    assert names == [str(number) for number in range(8)]


@pytest.mark.parametrize("skipped", [(), (0,), (1, 3)])
def test_what_is_sent_during_backward_is_what_is_sent_after_it(skipped):
    torch.manual_seed(0)
    part = Chain()
    sent = []
    for overlap in (True, False):
        part.zero_grad()
        ranks = Replay()
        for _ in range(2):  # the second step must not see the first
            part.zero_grad()
            sums_begun_by(part, ranks, skipped, overlap=overlap)
        sent.append(ranks.sent)
    assert len(sent[0]) == 16
    assert all(torch.equal(a, b) for a, b in zip(*sent, strict=True))
    for number, layer in enumerate(part.layers):
        assert (layer.weight.grad is None) == (number in skipped)


def test_a_gradient_that_changes_after_it_was_sent_is_refused():
    part = Chain()
    total = GradientSum(part.named_parameters(), Replay(), 1)
    total.begin()
    part(torch.ones(1, 3)).backward()
    with pytest.raises(OverlapError, match="overlap: false"):
        part(torch.ones(1, 3)).backward()


def test_nobody_listens_after_the_end():
    part = Chain()
    total = GradientSum(part.named_parameters(), Replay(), 1)
    total.begin()
    total.close()
    part(torch.ones(1, 3)).backward()
    assert not total._sent
