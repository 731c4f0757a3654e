"""The benchmark of GPUs, as far as a machine without one can try it: its peers, its rounds, its ratios."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from hpcreco import sparse
from hpcreco.nn.uresnet import UResNet


@pytest.fixture
def bench(repository, monkeypatch) -> ModuleType:
    """tools/bench/sparse_gpu.py, of a small event."""
    monkeypatch.syspath_prepend(str(repository / "tools" / "bench"))
    module = importlib.import_module("sparse_gpu")
    draw = np.random.default_rng(1)
    coords = np.unique(draw.integers(0, 12, (400, 3)), axis=0)
    monkeypatch.setattr(module.cpu_bench, "simulated", lambda seed: (coords, draw.random((len(coords), 3))))
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_said_and_nothing_is_written(bench, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["sparse_gpu.py", "--out", str(tmp_path / "out")])
    assert bench.main() == 0
    assert capsys.readouterr().out == "sparse_gpu: nothing measured: torch sees no GPU here\n"
    assert not (tmp_path / "out").exists()


def test_peers_that_need_no_gpu_take_turns(bench, monkeypatch, capsys, tmp_path):
    small = ["--device", "cpu", "--voxels", "150", "--width", "4", "--levels", "2", "--repeats", "2"]
    peers = ["--peers", "torch", "spconv", "gemm", "copy", "--precisions", "float32", "bfloat16"]
    monkeypatch.setattr(sys, "argv", ["sparse_gpu.py", "--out", str(tmp_path), *small, *peers])
    assert bench.main() == 0
    told = capsys.readouterr()
    if importlib.util.find_spec("spconv") is None:
        assert told.err.count("left out: No module named 'spconv'") == 2
    rows = (tmp_path / "sparse_gpu.csv").read_text().splitlines()
    assert rows[0].split(",")[:4] == ["peer", "precision", "task", "seconds"]
    measured = {tuple(row.split(",")[:3]) for row in rows[1:]}
    assert measured >= {
        (peer, precision, task)
        for peer in ("torch", "gemm", "copy")
        for precision in ("float32", "bfloat16")
        for task in bench.TASKS
    }
    assert all(row.endswith(",2,150,cpu") for row in rows[1:])
    assert (tmp_path / "sparse_gpu.figures.csv").read_text().count(
        "\n"
    ) == 1  # nothing is claimed without Triton


def test_the_path_is_forced_for_one_peer_only(bench, monkeypatch):
    seen = []
    monkeypatch.setenv("HPCRECO_SPARSE_PATH", "numba")
    monkeypatch.setattr(bench, "network", lambda model, setting: lambda task: seen.append(os.environ.copy()))
    setting = SimpleNamespace(width=4, levels=1)
    bench.ours(setting, "torch")("inference")
    assert seen[0]["HPCRECO_SPARSE_PATH"] == "torch"
    assert os.environ["HPCRECO_SPARSE_PATH"] == "numba"


def test_ratios_are_taken_round_by_round_against_the_best_engine(bench):
    step = "training step"
    times = {
        ("triton", "float32", step): [2.0, 4.0],
        ("triton", "bfloat16", step): [1.0, 2.0],
        ("torch", "bfloat16", step): [3.0, 4.0],
        ("minkowski", "float32", step): [3.0, 6.0],
        ("spconv", "bfloat16", step): [2.0, 3.0],
    }
    found = {figure.name: figure for figure in bench.ratios(times)}
    versus = "best of MinkowskiEngine and spconv / native"
    wide = found[f"UResNet {step} on a GPU, float32: {versus}"]
    assert (wide.values, wide.bar) == (
        [1.5, 1.5],
        None,
    )  # spconv's narrow products do not count against float32
    narrow = found[f"UResNet {step} on a GPU, bfloat16: {versus}"]
    assert (narrow.values, narrow.bar) == ([2.0, 1.5], 1.5)
    assert found[f"UResNet {step} on a GPU, bfloat16: torch operations / native"].values == [3.0, 2.0]
    assert len(found) == 3


def test_tf32_is_switched_back(bench):
    before = torch.backends.cuda.matmul.allow_tf32
    with bench.products("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before


class FakeTensor(SimpleNamespace):
    """spconv's tensor without its sites."""

    def __init__(self, features, indices, spatial_shape, batch_size):
        super().__init__(features=features)

    def replace_feature(self, features):
        return FakeTensor(features, None, None, None)


class FakeConv(torch.nn.Module):
    """Any of spconv's convolutions: a linear map of every row."""

    def __init__(self, c_in, c_out, kernel, stride=1, bias=True, indice_key=None):
        super().__init__()
        self.widths, self.volume = (c_in, c_out), kernel**3
        self.linear = torch.nn.Linear(c_in, c_out, bias)

    def forward(self, x):
        return x.replace_feature(self.linear(x.features))


def test_spconvs_network_has_our_layers(bench, monkeypatch):
    fake = ModuleType("spconv.pytorch")
    fake.SparseConvTensor = FakeTensor
    fake.SubMConv3d = fake.SparseConv3d = fake.SparseInverseConv3d = FakeConv
    package = ModuleType("spconv")
    package.pytorch = fake
    monkeypatch.setitem(sys.modules, "spconv", package)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", fake)
    monkeypatch.delitem(sys.modules, "spconv_uresnet", raising=False)
    theirs = importlib.import_module("spconv_uresnet").SpconvUResNet(4, 3)
    monkeypatch.delitem(sys.modules, "spconv_uresnet")
    ours = UResNet(4, 3)
    kinds = (sparse.SubmanifoldConv, sparse.DownConv, sparse.UpConv)
    expected = sorted(tuple(m.weight.shape) for m in ours.modules() if isinstance(m, kinds))
    assert expected == sorted((m.volume, *m.widths) for m in theirs.modules() if isinstance(m, FakeConv))
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 3, 3, 3)]).int()
    assert theirs(coords, torch.randn(27, 3)).shape == (27, 4)
    ours_norms = sum(m.weight.numel() for m in ours.modules() if type(m).__name__ == "BatchNorm")
    assert ours_norms == sum(
        m.weight.numel() for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm1d)
    )
