"""The sparse UResNet: its size, a dense copy as an oracle, separate events, input rows, both backends, empty input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcreco import sparse
from hpcreco.nn.uresnet import ResidualBlock, UResNet


def cloud(rows: int, size: tuple[int, int, int] = (16, 16, 8), events: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in (events, *size)], 1).int()


@pytest.mark.parametrize(("levels", "parameters"), [(4, 1_406_416), (5, 2_742_256)])
def test_parameter_counts(levels: int, parameters: int) -> None:
    assert sum(p.numel() for p in UResNet(16, levels).parameters()) == parameters


def test_parameter_count_with_a_linear_output() -> None:
    assert sum(p.numel() for p in nn.Sequential(UResNet(16, 4), nn.Linear(16, 1)).parameters()) == 1_406_433


class DenseCopy:
    """The network on a dense grid whose inactive cells are kept at zero, in torch's own layers; evaluation mode."""

    def __init__(self, network: UResNet, coords: Tensor, size: tuple[int, int, int]) -> None:
        self.network, self.coords, self.size = network, coords.long(), size

    def mask(self, stride: tuple[int, int, int]) -> Tensor:
        grid = torch.zeros(
            3, 1, *(n // s for n, s in zip(self.size, stride, strict=True)), dtype=torch.float64
        )
        b, x, y, z = self.coords.unbind(1)
        grid[b, 0, x // stride[0], y // stride[1], z // stride[2]] = 1
        return grid

    def norm(self, x: Tensor, layer: nn.Module, mask: Tensor) -> Tensor:
        y = functional.batch_norm(
            x, layer.running_mean, layer.running_var, layer.weight, layer.bias, training=False, eps=layer.eps
        )
        return functional.leaky_relu(y, layer.leakiness) * mask

    def conv(self, x: Tensor, layer: sparse.SubmanifoldConv, mask: Tensor) -> Tensor:
        weight = layer.weight.unflatten(0, layer.kernel).permute(4, 3, 0, 1, 2)
        return functional.conv3d(x, weight, padding=tuple(k // 2 for k in layer.kernel)) * mask

    def block(self, x: Tensor, layer: ResidualBlock, mask: Tensor) -> Tensor:
        y = self.conv(self.norm(x, layer.norm1, mask), layer.conv1, mask)
        y = self.conv(self.norm(y, layer.norm2, mask), layer.conv2, mask)
        return y + (x if layer.shortcut is None else self.conv(x, layer.shortcut, mask))

    def level(self, x: Tensor, index: int, stride: tuple[int, int, int]) -> Tensor:
        layer, mask = self.network.levels[index], self.mask(stride)
        for block in layer.before:
            x = self.block(x, block, mask)
        if index == len(self.network.levels) - 1:
            return x
        step = layer.down.stride
        deeper = (stride[0] * step[0], stride[1] * step[1], stride[2] * step[2])
        weight = layer.down.weight.unflatten(0, step).permute(4, 3, 0, 1, 2)
        below = functional.conv3d(self.norm(x, layer.down_norm, mask), weight, stride=step)
        below = self.norm(self.level(below, index + 1, deeper), layer.up_norm, self.mask(deeper))
        weight = layer.up.weight.unflatten(0, step).permute(3, 4, 0, 1, 2)
        x = torch.cat([x, functional.conv_transpose3d(below, weight, stride=step) * mask], 1)
        for block in layer.after:
            x = self.block(x, block, mask)
        return x

    def rows(self, features: Tensor) -> Tensor:
        b, x, y, z = self.coords.unbind(1)
        grid = torch.zeros(3, *self.size, features.shape[1], dtype=torch.float64)
        grid = grid.index_put((b, x, y, z), features, accumulate=True).permute(0, 4, 1, 2, 3)
        mask = self.mask((1, 1, 1))
        out = self.norm(
            self.level(self.conv(grid, self.network.stem, mask), 0, (1, 1, 1)), self.network.norm, mask
        )
        return out[b, :, x, y, z]


ARGUMENTS = [
    {"levels": 3},
    {"levels": 3, "planar_levels": 1, "down_x": (4, 4), "leakiness": 0.33, "repetitions": 1},
    {"levels": 2, "kernel": 5, "repetitions": 3, "in_features": 1},
    {"levels": 1},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_agrees_with_a_dense_network(arguments: dict) -> None:
    torch.manual_seed(0)
    network = UResNet(4, **arguments).double()
    coords = cloud(400)
    features = torch.randn(400, arguments.get("in_features", 3), dtype=torch.float64)
    for _ in range(3):  # running statistics of their own
        network(coords, features)
    network.eval()
    maps = network(coords, features)
    assert [m.features.shape[1] for m in maps.decoder] == [4 * (i + 1) for i in range(arguments["levels"])]
    dense = DenseCopy(network, coords, (16, 16, 8)).rows(features)
    torch.testing.assert_close(maps.rows, dense, rtol=0, atol=1e-10)
    ours = torch.autograd.grad(maps.rows.square().sum(), list(network.parameters()))
    theirs = torch.autograd.grad(dense.square().sum(), list(network.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arguments", ARGUMENTS[:2], ids=str)
def test_minkowski_agrees_with_native_in_training(arguments: dict) -> None:
    pytest.importorskip("MinkowskiEngine", reason="needs MinkowskiEngine")
    torch.manual_seed(0)
    network = UResNet(16, **arguments)
    coords, features = cloud(3000, seed=5), torch.randn(3000, 3)
    probe = torch.randn(3000, 16)

    def run(backend: str) -> list[Tensor]:
        with sparse.use(backend):
            rows = network(coords, features).rows
        return [rows, *torch.autograd.grad((rows * probe).sum(), list(network.parameters()))]

    for native, other in zip(run("native"), run("minkowski"), strict=True):
        assert (native - other).abs().max() <= 1e-4 * other.abs().max()


def test_events_do_not_mix_and_order_of_rows_does_not_matter() -> None:
    torch.manual_seed(0)
    network = UResNet(4, 3).double().eval()
    coords, features = cloud(500, events=4), torch.randn(500, 3, dtype=torch.float64)
    rows = network(coords, features).rows
    alone = coords[:, 0] == 2
    torch.testing.assert_close(network(coords[alone], features[alone]).rows, rows[alone], rtol=0, atol=1e-12)
    order = torch.randperm(500)
    torch.testing.assert_close(network(coords[order], features[order]).rows, rows[order], rtol=0, atol=1e-12)


def test_no_voxels_give_no_rows_and_zero_gradients() -> None:
    network = UResNet(4, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rows = network(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 3)).rows
    assert rows.shape == (0, 4)
    rows.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_coordinates_outside_of_spatial_size_are_refused() -> None:
    network = UResNet(4, 2, spatial_size=(16, 16, 8))
    network(torch.tensor([[0, 15, 15, 7]]), torch.zeros(1, 3))
    with pytest.raises(sparse.SparseError, match="z runs from 8 to 8, expected 0 to 7"):
        network(torch.tensor([[0, 15, 15, 8]]), torch.zeros(1, 3))


def test_any_stem() -> None:
    class Lift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x: sparse.SparseTensor) -> sparse.SparseTensor:
            return x.replace(self.linear(x.features))

    network = UResNet(4, 2, stem=Lift())
    network(cloud(50), torch.randn(50, 3)).rows.sum().backward()
    assert network.stem.linear.weight.grad.any()
