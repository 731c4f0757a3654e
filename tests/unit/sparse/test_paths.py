"""Which code computes convolutions: the rule, what a user may force, and what is said where that cannot be had."""

from __future__ import annotations

import pytest
import torch

from hpcreco import sparse
from hpcreco.doctor import machine
from hpcreco.sparse import paths

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(paths.VARIABLE, raising=False)
    tried = paths._fallback_reason
    tried.cache_clear()
    yield
    tried.cache_clear()


def test_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.choose(CPU) == "numba"
    assert paths.choose(torch.device("meta")) == "torch"
    monkeypatch.setattr(paths, "_fallback_reason", lambda index: None)
    assert paths.choose(GPU) == "triton"
    monkeypatch.setenv(paths.VARIABLE, "auto")
    assert paths.choose(CPU) == "numba"


def test_a_gpu_without_triton_falls_back_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="use torch operations.*triton is not installed"):
        assert paths.choose(GPU) == "torch"
    assert paths.choose(GPU) == "torch"  # pytest would show a second warning


def test_doctor_is_told_what_a_gpu_gets_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.described(CPU) == "numba kernels"
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    assert paths.described(GPU).startswith("torch operations: triton is not installed")
    monkeypatch.setattr(paths, "_fallback_reason", lambda index: None)
    assert paths.described(GPU) == "Triton kernels"
    monkeypatch.setenv(paths.VARIABLE, "torch")
    assert paths.described(GPU) == f"torch operations ({paths.VARIABLE} is set)"
    assert "paths.described" in machine.GPU


def test_a_first_kernel_that_fails_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcreco.sparse.gpu import launch

    def fail(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.\nMore about it")

    monkeypatch.setattr(paths, "triton_problem", lambda device: None)
    monkeypatch.setattr(launch, "try_out", fail)
    with pytest.warns(UserWarning, match=r"RuntimeError: Failed to find C compiler\.$"):
        assert paths.choose(GPU) == "torch"


@pytest.mark.parametrize("path", ["torch", "triton", "numba"])
def test_a_path_is_forced(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.VARIABLE, path)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert paths.choose(CPU) == path


def test_what_cannot_be_had_is_refused(triton_compiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.VARIABLE, "cuda")
    with pytest.raises(sparse.SparseError, match="'cuda' is not one of auto, numba, triton, torch"):
        paths.choose(CPU)
    monkeypatch.setenv(paths.VARIABLE, "numba")
    with pytest.raises(sparse.SparseError, match="numba works on CPU tensors only"):
        paths.choose(GPU)
    monkeypatch.setenv(paths.VARIABLE, "triton")
    with pytest.raises(sparse.SparseError, match="triton"):
        paths.choose(CPU)
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    with pytest.raises(sparse.SparseError, match=r"pip install 'hpcreco\[gpu-kernels\]'"):
        paths.choose(GPU)


def test_an_old_triton_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.triton_version() >= paths.OLDEST_TRITON
    monkeypatch.setattr(paths, "triton_version", lambda: (3, 2))
    expected = "triton 3.2 is too old, 3.3 (of torch 2.7) or newer is needed"
    assert paths.triton_problem(GPU) == expected


def test_old_gpus_use_torch_operations(triton_compiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "find_spec", lambda name: True)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert paths.triton_problem(GPU) == "its kernels need compute capability 8.0 or newer"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert paths.triton_problem(GPU) is None
