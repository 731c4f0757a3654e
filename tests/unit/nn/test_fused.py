"""Normalisation and convolution as one operation: what the modules do one after the other, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hpcreco import sparse
from hpcreco.nn import fused, rows
from hpcreco.nn.normalisation import BatchNorm
from hpcreco.nn.uresnet import UResNet
from hpcreco.sparse import SparseTensor, maps, native


def cloud(rows: int, events: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randint(0, n, (rows,), generator=generator) for n in (events, 9, 9, 6)], 1
    ).int()


def one_by_one(norm: BatchNorm, conv: torch.nn.Module, x: SparseTensor, **where: Any) -> SparseTensor:
    return conv(x.replace(norm(x.features)), **where)


class Layers(torch.nn.Module):
    """Every kind of convolution, with widths that fill a register and that do not."""

    def __init__(self, c_in: int, c_out: int, leakiness: float = 0.1) -> None:
        super().__init__()

        def norm(channels: int) -> BatchNorm:
            made = BatchNorm(channels, leakiness=leakiness)
            torch.nn.init.uniform_(made.weight, 0.5, 2)
            torch.nn.init.uniform_(made.bias, -1, 1)
            return made

        self.norms = torch.nn.ModuleList([norm(c_in), norm(c_out), norm(c_out + 1), norm(c_out)])
        self.same = sparse.SubmanifoldConv(c_in, c_out, 3)
        self.down = sparse.DownConv(c_out, c_out + 1, 2, 2)
        self.up = sparse.UpConv(c_out + 1, c_out, 2, 2)
        self.last = sparse.SubmanifoldConv(c_out, 2, (1, 3, 1))

    def forward(self, x: SparseTensor, base: Tensor, how: Callable[..., SparseTensor]) -> Tensor:
        fine = how(self.norms[0], self.same, x, base=base)
        coarse = how(self.norms[1], self.down, fine)
        back = how(self.norms[2], self.up, coarse, onto=fine)
        return how(self.norms[3], self.last, back).features


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Threads of torch, to which also small work is shared out."""
    for module in (rows, native, maps):
        monkeypatch.setattr(module, "SMALL", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def run(layers: Layers, coords: Tensor, rows: Tensor, base: Tensor, how: Callable) -> list[Tensor]:
    """Output, gradients, statistics remembered."""
    state = {name: value.clone() for name, value in layers.state_dict().items()}
    x = sparse.voxelize(coords, rows)[0]
    y = layers(x, base.expand(len(x.features), -1), how)
    probe = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    wanted = [v for v in (rows, base, *layers.parameters()) if v.requires_grad]
    result = [y, *torch.autograd.grad((y * probe).sum(), wanted), *(b.clone() for b in layers.buffers())]
    layers.load_state_dict(state)
    return result


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)], ids=str)
@pytest.mark.parametrize("widths", [(3, 5), (16, 16), (20, 32)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 700])
@pytest.mark.usefixtures("threads")
def test_training_is_that_of_the_modules_one_by_one(
    widths: tuple[int, int], rows: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(1)
    layers = Layers(*widths).to(dtype)
    features = torch.randn(rows, widths[0], dtype=dtype, requires_grad=True)
    base = torch.randn(widths[1], dtype=dtype, requires_grad=True)
    ours = run(layers, cloud(rows), features, base, fused.convolved)
    for one, other in zip(ours, run(layers, cloud(rows), features, base, one_by_one), strict=True):
        assert one.shape == other.shape
        if one.numel():
            assert (one - other).abs().max() <= tolerance * max(1, other.abs().max())


def test_gradients_are_those_of_differences() -> None:
    torch.manual_seed(2)
    x = sparse.voxelize(cloud(30), torch.zeros(30, 1, dtype=torch.float64))[0]
    n = len(x.features)
    norm, conv = BatchNorm(3, leakiness=0.3).double(), sparse.SubmanifoldConv(3, 4).double()
    pairs = conv.route(x)[1]
    inputs = [torch.randn(n, 3), torch.rand(3) + 1, torch.randn(3), torch.randn(27, 3, 4), torch.randn(n, 4)]
    inputs = [v.double().requires_grad_() for v in inputs]

    def function(*values: Tensor) -> Tensor:
        return fused.NormalisedConvolution.apply(*values, pairs, (norm.eps, 0.3, None, None))[0]

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.usefixtures("threads")
def test_two_runs_are_bitwise_equal() -> None:
    torch.manual_seed(3)
    layers, features, base = Layers(16, 32), torch.randn(700, 16, requires_grad=True), torch.randn(32)
    first, second = (run(layers, cloud(700), features, base, fused.convolved) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("frozen", ["same", "norms.0", "last"])
def test_frozen_parts_get_no_gradients_and_change_none(frozen: str) -> None:
    torch.manual_seed(4)
    layers = Layers(16, 16).double()
    layers.get_submodule(frozen).requires_grad_(False).eval()
    features, base = torch.randn(300, 16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    ours = run(layers, cloud(300), features, base, fused.convolved)
    for one, other in zip(ours, run(layers, cloud(300), features, base, one_by_one), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_hooks_see_their_module_called() -> None:
    torch.manual_seed(8)
    network = UResNet(4, 2, repetitions=1)
    seen = []
    for name, part in network.named_modules():
        if isinstance(part, BatchNorm | sparse.SubmanifoldConv | sparse.DownConv | sparse.UpConv):
            part.register_forward_hook(lambda *_, name=name: seen.append(name))
    for training in (True, False):
        network.train(training)
        with torch.no_grad():
            network(cloud(50), torch.randn(50, 3))
    assert len(seen) == 2 * len(set(seen)) == 2 * 19


def test_two_ranks_with_the_same_event_are_one_with_it_twice() -> None:
    torch.manual_seed(5)
    layers = Layers(4, 8).double()
    coords = torch.unique(cloud(300, events=1), dim=0)
    features = torch.randn(len(coords), 4, dtype=torch.float64, requires_grad=True)
    base = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    twice = torch.cat([coords, coords + torch.tensor([1, 0, 0, 0], dtype=torch.int32)])
    x = sparse.voxelize(twice, features.repeat(2, 1))[0]
    expected = layers(x, base.expand(len(twice), 8), one_by_one)
    probe = torch.randn(len(coords), 2, dtype=torch.float64)
    theirs = torch.autograd.grad((expected * probe.repeat(2, 1)).sum(), [features, *layers.parameters()])

    for norm in layers.norms:
        norm.reduce = lambda total: total * 2
    x = sparse.voxelize(coords, features)[0]
    y = layers(x, base.expand(len(coords), 8), fused.convolved)
    ours = torch.autograd.grad((y * probe).sum(), [features, *layers.parameters()])
    torch.testing.assert_close(y, expected[: len(coords)], rtol=1e-10, atol=1e-10)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(2 * one, other, rtol=1e-9, atol=1e-9)


def test_autocast_keeps_full_precision() -> None:
    torch.manual_seed(6)
    layers, features, base = Layers(16, 16), torch.randn(300, 16, requires_grad=True), torch.randn(16)
    plain = run(layers, cloud(300), features, base, fused.convolved)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run(layers, cloud(300), features, base, fused.convolved)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize("rows", [0, 1, 400])
@pytest.mark.parametrize("width", [4, 16])
def test_inference_is_evaluation_with_gradients(width: int, rows: int) -> None:
    """Without gradients normalisations are done in the convolutions' output, with them every module by itself."""
    torch.manual_seed(7)
    network = UResNet(width, 3, leakiness=0.2).double()
    coords, features = cloud(rows), torch.randn(rows, 3, dtype=torch.float64)
    for _ in range(3):  # running statistics of their own
        network(coords, features)
    network.eval()
    expected = network(coords, features)
    with torch.no_grad():
        found = network(coords, features)
    torch.testing.assert_close(found.rows, expected.rows, rtol=0, atol=1e-12)
    for one, other in zip(found.decoder, expected.decoder, strict=True):
        torch.testing.assert_close(one.features, other.features, rtol=1e-12, atol=1e-12)
