"""The Triton kernels compute what the CPU's do, forward and backward: on a GPU, or else in Triton's interpreter."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hpcreco import sparse
from hpcreco.sparse.native import NativeSites
from hpcreco.sparse.tensor import Triple, pack

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True)
class Case:
    """Widths of input, submanifold, strided and transposed convolution; sizes of kernel, window and stride; rows."""

    widths: tuple[int, int, int, int] = (4, 16, 16, 8)
    kernel: Triple = (3, 3, 3)
    window: Triple = (2, 2, 2)
    stride: Triple = (2, 2, 2)
    rows: int = 120
    events: int = 2


CASES = {
    "several tiles": Case(),
    "odd widths, flat kernel": Case((3, 17, 5, 1), (1, 3, 3), (1, 2, 2), (1, 2, 2), events=4),
    "blocks of channels": Case((80, 33, 65, 16), (3, 1, 1), (1, 2, 1), (1, 2, 1), rows=20),
    "windows overlap": Case((2, 3, 4, 5), (1, 1, 3), (3, 3, 1), (2, 2, 2), rows=40),
    "more offsets than bits of a mask": Case((1, 2, 3, 4), (5, 5, 3), rows=20),
    "one cell": Case((5, 6, 7, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1), rows=30),
    "one row": Case(rows=1, events=1),
    "nothing": Case(rows=0),
}


def network(path: str, case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Features and gradients of a submanifold, a strided and a transposed convolution; float16 types by autocast."""
    torch.manual_seed(5)
    columns = [torch.randint(0, n, (case.rows,)) for n in (case.events, 6, 7, 5)]
    coords = torch.unique(torch.stack(columns, 1), dim=0).int()
    wide = dtype if dtype.itemsize > 2 else torch.float32
    c = case.widths
    layers = [
        sparse.SubmanifoldConv(c[0], c[1], case.kernel),
        sparse.DownConv(c[1], c[2], case.window, case.stride),
        sparse.UpConv(c[2], c[3], case.window, case.stride),
    ]
    inputs = [torch.randn(len(coords), width) for width in c[:2]]
    device = torch.device("cpu") if path == "numba" else DEVICE
    rows, base = (tensor.to(device, wide).requires_grad_() for tensor in inputs)
    conv, down, up = (layer.to(device, wide) for layer in layers)
    x = sparse.SparseTensor(rows, NativeSites(coords.to(device), pack(coords).to(device), path=path))
    with torch.autocast(device.type, dtype, enabled=dtype.itemsize == 2):
        fine = conv(x, base=base)
        coarse = down(fine)
        back = up(coarse, onto=fine)
    results = [fine.features, coarse.features, back.features]
    assert {r.dtype for r in results} == {wide}
    loss = sum(
        (r * torch.linspace(-1, 1, r.numel(), dtype=wide, device=device).view_as(r)).sum() for r in results
    )
    gradients = torch.autograd.grad(loss, [rows, base, *(layer.weight for layer in (conv, down, up))])
    return [tensor.detach().cpu().double() for tensor in (*results, *gradients)]


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        if one.numel():
            assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_float32_equals_the_cpu(name: str) -> None:
    agree(network("triton", CASES[name]), network("numba", CASES[name], torch.float64), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_precisions(dtype: torch.dtype) -> None:
    case = Case((3, 16, 20, 5), (3, 1, 3), rows=40)
    agree(network("triton", case, dtype), network("numba", case, torch.float64), TOLERANCES[dtype])


def test_a_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """UResNet with its batch norm, by the path that the environment names."""
    from hpcreco.nn.uresnet import UResNet

    torch.manual_seed(3)
    model = UResNet(2, 2, repetitions=1, leakiness=0.2).double()
    coords = torch.cat([torch.randint(0, 2, (30, 1)), torch.randint(0, 5, (30, 3))], 1).int()
    features = torch.randn(30, 3)

    def trained(path: str, dtype: torch.dtype) -> list[Tensor]:
        monkeypatch.setenv("HPCRECO_SPARSE_PATH", path)
        device = torch.device("cpu") if path == "numba" else DEVICE
        network_ = copy.deepcopy(model).to(device, dtype)
        rows = network_(coords.to(device), features.to(device, dtype)).rows
        gradients = torch.autograd.grad(rows.square().sum(), list(network_.parameters()))
        network_.eval()
        with torch.no_grad():
            later = network_(coords.to(device), features.to(device, dtype)).rows
        return [tensor.detach().cpu().double() for tensor in (rows, later, *gradients)]

    agree(trained("triton", torch.float32), trained("numba", torch.float64), 1e-4)


def test_narrow_products_are_summed_in_float32() -> None:
    """Factors that bfloat16 holds exactly give sums that it does not hold, with no error at all."""
    rows = torch.arange(65)
    coords = torch.stack([rows * 0, rows * 0, rows * 0, rows], 1).int().to(DEVICE)
    x = sparse.SparseTensor(
        torch.full((65, 1), 256.0, device=DEVICE), NativeSites(coords, pack(coords), path="triton")
    )
    conv = sparse.SubmanifoldConv(1, 16, (1, 1, 3)).to(DEVICE)
    torch.nn.init.ones_(conv.weight)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        out = conv(x, base=torch.full((65, 16), 1.0, device=DEVICE)).features
    assert out.dtype == torch.float32
    assert out[1:-1].unique().tolist() == [3 * 256 + 1]
    (gradient,) = torch.autograd.grad(out.sum(), [conv.weight])
    assert gradient[:, 0, 0].tolist() == [64.0 * 256, 65.0 * 256, 64.0 * 256]


def test_offsets_that_a_tile_does_not_have_are_skipped() -> None:
    """In a plane the matrices of offsets that leave it are never read: NaNs in them do not show."""
    draw = torch.Generator().manual_seed(2)
    plane = torch.unique(torch.randint(0, 9, (60, 2), generator=draw), dim=0)
    coords = (
        torch.cat([torch.zeros(len(plane), 1), torch.full((len(plane), 1), 3), plane], 1).int().to(DEVICE)
    )
    conv = sparse.SubmanifoldConv(2, 3).to(DEVICE)
    with torch.no_grad():
        conv.weight[:9] = conv.weight[18:] = float("nan")
    rows = torch.randn(len(coords), 2, device=DEVICE, requires_grad=True)
    out = conv(sparse.SparseTensor(rows, NativeSites(coords, pack(coords), path="triton"))).features
    gradients = torch.autograd.grad(out.square().sum(), [rows, conv.weight])
    assert all(tensor.isfinite().all() for tensor in (out, *gradients))
    assert not gradients[1][:9].any()
    assert gradients[1][9:18].any()


def test_two_runs_are_bitwise_equal_and_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcreco.sparse.gpu import tuning

    case = Case(kernel=(1, 3, 3), rows=70)
    first, second = network("triton", case), network("triton", case)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for kernel in tuning.CANDIDATES:
        monkeypatch.setitem(tuning.CANDIDATES, kernel, (tuning.Blocks(16, 1, 1),))
    other = network("triton", case)
    assert all(torch.equal(a, b) for a, b in zip(first[:5], other[:5], strict=True))
    agree(other, first, 1e-5)


def test_gradients_of_weights_are_split_over_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcreco.sparse.gpu import launch, tuning

    monkeypatch.setitem(tuning.CANDIDATES, "weight_gradient", (tuning.Blocks(16, 1, 1),))
    monkeypatch.setattr(launch, "LEAST_TILES", 1)
    case = Case(kernel=(1, 3, 3), rows=70)
    agree(network("triton", case), network("numba", case, torch.float64), 1e-5)
