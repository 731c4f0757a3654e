"""The comparison of GPUs with CPUs finds what differs; where there is no GPU it says so."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from hpcreco.sparse import paths

SCRIPT = "tools/engines/check_gpu.py"


@pytest.fixture(scope="module")
def check(repository) -> ModuleType:
    """tools/engines/check_gpu.py, which is a script."""
    spec = importlib.util.spec_from_file_location("engine_check_gpu", repository / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.mpi
def test_two_ranks_of_cpus_agree(repository, mpiexec):
    run = mpiexec(2, [repository / SCRIPT, "--device", "cpu", "--voxels", "500", "--numbers", "1000"])
    assert run.out.count(" ok") >= 6
    assert "sum over 2 by" in run.out
    assert "DIFFERS" not in run.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_said_in_one_sentence(check, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_gpu.py"])
    assert check.main() == 1
    assert capsys.readouterr().err.startswith("check_gpu: nothing compared: ")


def test_a_wrong_gradient_is_found(check, monkeypatch, capsys):
    right = check.network

    def wrong(coords, device, dtype, backend, amp):
        result, *gradients = right(coords, device, dtype, backend, amp)
        if dtype == torch.float32:
            gradients[-1] = gradients[-1] * 1.01
        return [result, *gradients]

    monkeypatch.setattr(check, "network", wrong)
    monkeypatch.setattr(check.sparse, "BACKENDS", {"native": check.sparse.BACKENDS["native"]})
    checks = list(check.convolutions(torch.device("cpu"), 300, 0))
    # by numba and by torch operations; bfloat16 is allowed more
    assert [c.passed for c in checks] == [True, False, True] * 2
    assert not check.show([checks])
    assert capsys.readouterr().out.count("DIFFERS") == 2


def test_a_gpu_is_compared_by_both_paths_and_each_is_forced_alone(check, monkeypatch):
    monkeypatch.setattr(check.sparse, "BACKENDS", {"native": check.sparse.BACKENDS["native"]})
    assert check.candidates(torch.device("cuda")) == [("native", "triton"), ("native", "torch")]
    assert "tf32" in check.precisions(torch.device("cuda"))
    monkeypatch.setenv(paths.VARIABLE, "numba")
    before = torch.backends.cuda.matmul.allow_tf32
    with check.by_path("torch"), check.tf32(True):
        assert paths.choose(torch.device("cpu")) == "torch"
        assert torch.backends.cuda.matmul.allow_tf32
    assert paths.choose(torch.device("cpu")) == "numba"
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_a_path_that_cannot_be_had_is_told(check, triton_compiles, monkeypatch):
    monkeypatch.setattr(check.sparse, "BACKENDS", {"native": check.sparse.BACKENDS["native"]})
    monkeypatch.setattr(check, "candidates", lambda device: [("native", "triton")])
    (told,) = check.convolutions(torch.device("cpu"), 50, 0)
    assert told.name == "native, triton: not compared"
    assert "it compiles for GPUs only" in told.note


def test_not_a_number_and_sums_beside_nccl_do_not_pass(check):
    assert not check.Check("", float("nan"), 1.0, 0.0).passed
    cpu, gpu = torch.device("cpu"), SimpleNamespace(type="cuda")
    ranks = SimpleNamespace(rank=0, size=1, name="horovod", device=gpu, on_device=False)
    ranks.sum = lambda tensor: tensor.clone()
    ranks.broadcast_ = lambda tensors, root: None
    full, arange = torch.full, torch.arange
    with pytest.MonkeyPatch.context() as patch:  # tensors of this pretended GPU lie on the CPU
        patch.setattr(torch, "full", lambda *a, device=None, **k: full(*a, device=cpu, **k))
        patch.setattr(torch, "arange", lambda *a, device=None, **k: arange(*a, device=cpu, **k))
        checks = list(check.sums(ranks, 10))
    assert [c.passed for c in checks] == [False, False, True]
    assert "NCCL" in checks[0].note
