"""Sparse convolutions equal dense ones sampled at the active sites, in every backend, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpcreco import sparse
from hpcreco.sparse import native
from hpcreco.sparse.native import NativeSites

SIZE = (8, 12, 6)
EVENTS = 4


def cloud(name: str) -> Tensor:
    """Rows of coordinates: batch, x, y, z."""
    generator = torch.Generator().manual_seed(3)

    def uniform(rows: int) -> Tensor:
        return torch.stack(
            [torch.randint(0, n, (rows,), generator=generator) for n in (EVENTS, *SIZE)], 1
        ).int()

    corners = torch.cartesian_prod(*[torch.tensor([0, n - 1]) for n in (EVENTS, *SIZE)]).int()
    return {
        "dense enough for duplicates": uniform(900),
        "sparse": uniform(60),
        "an empty event in the middle": (rows := uniform(300))[rows[:, 0] != 2],
        "borders": corners[torch.randperm(len(corners), generator=generator)],
        "one voxel": torch.tensor([[1, 7, 0, 5]], dtype=torch.int32),
        "one voxel given twice": torch.tensor([[1, 7, 0, 5], [1, 7, 0, 5]], dtype=torch.int32),
        "nothing": torch.zeros(0, 4, dtype=torch.int32),
    }[name]


CLOUDS = [
    "dense enough for duplicates",
    "sparse",
    "an empty event in the middle",
    "borders",
    "one voxel",
    "one voxel given twice",
    "nothing",
]


@pytest.fixture(params=["native", "torch operations", "minkowski"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "minkowski":
        pytest.importorskip("MinkowskiEngine", reason="needs MinkowskiEngine")
    if request.param == "torch operations":
        monkeypatch.setenv("HPCRECO_SPARSE_PATH", "torch")
        return "native"
    return request.param


def scatter(features: Tensor, coords: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, C) at (N, 4) -> dense (EVENTS, C, X, Y, Z); duplicates are summed."""
    grid = features.new_zeros(EVENTS, *size, features.shape[1])
    return grid.index_put(tuple(coords.long().unbind(1)), features, accumulate=True).permute(0, 4, 1, 2, 3)


def gather(grid: Tensor, coords: Tensor) -> Tensor:
    b, x, y, z = coords.long().unbind(1)
    return grid[b, :, x, y, z]


def dense_weight(weight: Tensor, kernel: tuple[int, int, int]) -> Tensor:
    """(K, C_in, C_out), offsets in lexicographic order -> torch's (C_out, C_in, X, Y, Z)."""
    return weight.unflatten(0, kernel).permute(4, 3, 0, 1, 2)


def agree(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    assert ours.shape == theirs.shape
    if ours.numel():
        worst = (ours - theirs).abs().max().item()
        assert worst <= (1e-10 if dtype == torch.float64 else 1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), (2, 2, 2)), ((1, 3, 5), (4, 3, 1))])
def test_backends_agree_with_dense_convolutions(
    backend: str, kind: str, dtype: torch.dtype, kernel: sparse.Triple, stride: sparse.Triple
) -> None:
    torch.manual_seed(1)
    coords = cloud(kind)
    rows = torch.randn(len(coords), 3, dtype=dtype, requires_grad=True)
    conv = sparse.SubmanifoldConv(3, 16, kernel).to(dtype)
    down = sparse.DownConv(16, 20, stride, stride).to(dtype)
    up = sparse.UpConv(20, 5, stride, stride).to(dtype)
    base = torch.randn(16, dtype=dtype, requires_grad=True)
    parameters = [rows, base, conv.weight, down.weight, up.weight]

    x, inverse = sparse.voxelize(coords, rows, SIZE, backend)
    fine = conv(x, base=base.expand(len(x.features), 16))
    coarse = down(fine)
    back = sparse.concatenate(fine, up(coarse, onto=fine)).features[inverse]
    probe = torch.randn_like(back)
    ours = torch.autograd.grad((back * probe).sum(), parameters)

    grid = scatter(rows, coords, SIZE)
    same = functional.conv3d(grid, dense_weight(conv.weight, kernel), padding=tuple(k // 2 for k in kernel))
    active = torch.unique(coords, dim=0)
    fine_d = scatter(gather(same, active) + base, active, SIZE)
    strided = functional.conv3d(fine_d, dense_weight(down.weight, stride), stride=stride)
    windows = torch.unique(
        torch.cat([coords[:, :1], coords[:, 1:] // torch.tensor(stride, dtype=torch.int32)], 1), dim=0
    )
    coarse_d = scatter(gather(strided, windows), windows, strided.shape[2:])
    up_weight = up.weight.unflatten(0, stride).permute(3, 4, 0, 1, 2)
    raised = functional.conv_transpose3d(coarse_d, up_weight, stride=stride)
    back_d = torch.cat([gather(fine_d, coords), gather(raised, coords)], 1)
    theirs = torch.autograd.grad((back_d * probe).sum(), parameters)

    assert set(map(tuple, coarse.coords.tolist())) == set(map(tuple, windows.tolist()))
    assert coarse.stride == stride
    agree(back, back_d, dtype)
    for one, other in zip(ours, theirs, strict=True):
        agree(one, other, dtype)


@pytest.mark.parametrize("path", ["numba", "torch"])
def test_windows_wider_than_the_stride(path: str) -> None:
    """kernel 3, stride 2: the dense convolution of the grid, padded with zeros at the upper end."""
    torch.manual_seed(2)
    coords = torch.unique(cloud("sparse"), dim=0)
    features = torch.randn(len(coords), 4, dtype=torch.float64, requires_grad=True)
    from hpcreco.sparse.tensor import pack

    x = sparse.SparseTensor(features, NativeSites(coords, pack(coords), path=path))
    down = sparse.DownConv(4, 6, 3, 2).double()
    y = down(x)
    padded = functional.pad(scatter(features, coords, SIZE), (0, 2) * 3)
    dense = functional.conv3d(padded, dense_weight(down.weight, (3, 3, 3)), stride=2)
    occupied = functional.conv3d(
        (padded != 0).any(1, keepdim=True).double(), torch.ones(1, 1, 3, 3, 3, dtype=torch.float64), stride=2
    )
    assert len(y.coords) == int((occupied[:, 0] > 0).sum())
    agree(y.features, gather(dense, y.coords), torch.float64)
    probe = torch.randn_like(y.features)
    ours = torch.autograd.grad((y.features * probe).sum(), [features, down.weight])
    theirs = torch.autograd.grad((gather(dense, y.coords) * probe).sum(), [features, down.weight])
    for one, other in zip(ours, theirs, strict=True):
        agree(one, other, torch.float64)


def test_two_runs_are_bitwise_equal() -> None:
    coords = cloud("dense enough for duplicates")
    torch.manual_seed(4)
    rows = torch.randn(len(coords), 3)
    conv, down = sparse.SubmanifoldConv(3, 32), sparse.DownConv(32, 48, 2, 2)

    def run() -> list[Tensor]:
        x, _ = sparse.voxelize(coords, rows)
        y = down(conv(x)).features
        return [y, *torch.autograd.grad(y.square().sum(), [conv.weight, down.weight])]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


def test_outputs_do_not_depend_on_the_number_of_threads() -> None:
    coords = cloud("dense enough for duplicates")
    rows = torch.randn(len(coords), 3)
    conv = sparse.SubmanifoldConv(3, 16)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(conv(sparse.voxelize(coords, rows)[0]).features)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_work_left_to_one_thread_has_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = cloud("dense enough for duplicates")
    torch.manual_seed(5)
    rows, conv = torch.randn(len(coords), 3), sparse.SubmanifoldConv(3, 16).double()
    before = torch.get_num_threads()
    results = []
    try:
        torch.set_num_threads(3)
        for small in (0, 10**9):
            monkeypatch.setattr(native, "SMALL", small)
            y = conv(sparse.voxelize(coords, rows.double())[0]).features
            results.append((y, torch.autograd.grad(y.square().sum(), conv.weight)[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=1e-12)


def test_autocast_keeps_full_precision() -> None:
    coords = cloud("sparse")
    rows = torch.randn(len(coords), 3)
    conv = sparse.SubmanifoldConv(3, 16)
    plain = conv(sparse.voxelize(coords, rows)[0]).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = conv(sparse.voxelize(coords, rows)[0]).features
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_even_submanifold_kernels_are_refused() -> None:
    with pytest.raises(sparse.SparseError, match="odd kernel sizes"):
        sparse.SubmanifoldConv(3, 16, (2, 3, 3))


def test_up_needs_the_sites_that_down_left() -> None:
    coords = cloud("sparse")
    x, _ = sparse.voxelize(coords, torch.randn(len(coords), 3))
    other, _ = sparse.voxelize(coords, torch.randn(len(coords), 3))
    coarse = sparse.DownConv(3, 4, 2, 2)(x)
    with pytest.raises(sparse.SparseError, match="onto"):
        sparse.UpConv(4, 3, 2, 2)(coarse, onto=other)
