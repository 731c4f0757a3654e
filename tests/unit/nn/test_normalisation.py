"""Batch normalisation over rows: against torch, over ranks, without rows, in each of its implementations."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcreco.nn.normalisation import BatchNorm, synchronise
from hpcreco.sparse import paths

IMPLEMENTATIONS = ["numba", "torch", "triton"]


@pytest.fixture(params=IMPLEMENTATIONS, autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's in its interpreter."""
    if request.param == "triton" and not paths.interpreted():
        pytest.skip("these tests have their tensors on the CPU; there is a GPU here")
    monkeypatch.setenv(paths.VARIABLE, request.param)


def random_norm(channels: int, **options: object) -> BatchNorm:
    norm = BatchNorm(channels, **options).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    return norm


@pytest.mark.parametrize("leakiness", [0.0, 0.33, 1.0])
@pytest.mark.parametrize("rows", [2, 1500])
def test_agrees_with_torch(rows: int, leakiness: float) -> None:
    torch.manual_seed(0)
    ours = random_norm(5, eps=1e-4, keep=0.9, leakiness=leakiness)
    theirs = nn.BatchNorm1d(5, eps=1e-4, momentum=0.1).double()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = (torch.randn(rows, 5, dtype=torch.float64) * 3 + 100).requires_grad_()
    probe = torch.randn(rows, 5, dtype=torch.float64)

    y = ours(x)
    expected = functional.leaky_relu(theirs(x), leakiness)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9)
    for norm in (ours, theirs):
        assert norm.weight.grad is None
    mine = torch.autograd.grad((y * probe).sum(), [x, *ours.parameters()])
    other = torch.autograd.grad((expected * probe).sum(), [x, *theirs.parameters()])
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)

    ours.eval(), theirs.eval()
    expected = functional.leaky_relu(theirs(x), leakiness)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-9)


def test_one_row_becomes_the_bias() -> None:
    norm = random_norm(3, leakiness=1.0)
    x = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    y = norm(x)
    torch.testing.assert_close(y, norm.bias.expand(1, 3))
    y.sum().backward()
    assert float(x.grad.abs().max()) < 1e-10
    assert torch.isfinite(norm.running_var).all()


def test_no_rows_change_nothing() -> None:
    norm = random_norm(3)
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    x = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad.shape == (0, 3)
    for parameter in norm.parameters():
        assert torch.equal(parameter.grad, torch.zeros(3, dtype=torch.float64))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name]), name


def on_ranks(work: Callable[[int, Callable[[Tensor], Tensor]], None], size: int) -> None:
    """Run work(rank, reduce) on threads that play ranks; reduce sums a tensor over them."""
    barrier = threading.Barrier(size)
    given: list[Tensor | None] = [None] * size
    errors: list[Exception] = []

    def rank(index: int) -> None:
        def reduce(tensor: Tensor) -> Tensor:
            given[index] = tensor.clone()
            barrier.wait(300)
            total = torch.stack([t for t in given if t is not None]).sum(0)
            barrier.wait(300)
            return total

        try:
            work(index, reduce)
        except Exception as error:  # noqa: BLE001 (raised again below)
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=rank, args=(index,)) for index in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("split", [[700, 300], [999, 1, 0], [0, 0]])
def test_ranks_with_a_reduce_hook_do_what_one_rank_does(split: list[int]) -> None:
    """The union of the ranks' rows on one rank: same outputs, gradients, running statistics; also with empty ranks."""
    torch.manual_seed(1)
    whole = nn.Sequential(random_norm(4, keep=0.9), nn.Linear(4, 4).double(), random_norm(4, leakiness=0.2))
    x = torch.randn(sum(split), 4, dtype=torch.float64)
    probe = torch.randn(sum(split), 4, dtype=torch.float64)
    copies = []
    for _ in split:
        copy = nn.Sequential(
            random_norm(4, keep=0.9), nn.Linear(4, 4).double(), random_norm(4, leakiness=0.2)
        )
        copy.load_state_dict(whole.state_dict())
        copies.append(copy)
    parts, probes = x.split(split), probe.split(split)
    of_input: list[Tensor | None] = [None] * len(split)

    def work(rank: int, reduce: Callable[[Tensor], Tensor]) -> None:
        synchronise(copies[rank], reduce)
        part = parts[rank].clone().requires_grad_()
        (copies[rank](part) * probes[rank]).sum().backward()
        of_input[rank] = part.grad

    on_ranks(work, len(split))
    x.requires_grad_()
    (whole(x) * probe).sum().backward()
    torch.testing.assert_close(torch.cat([g for g in of_input if g is not None]), x.grad, rtol=0, atol=1e-10)
    for name, parameter in whole.named_parameters():
        total = sum(dict(copy.named_parameters())[name].grad for copy in copies)
        torch.testing.assert_close(total, parameter.grad, rtol=0, atol=1e-10)
    for copy in copies:
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(dict(copy.named_buffers())[name], buffer, rtol=0, atol=1e-10)
