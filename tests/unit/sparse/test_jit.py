"""Compiled kernels beside other threads and where nothing can be cached; how OpenMP threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
import torch

from hpcreco import sparse
from hpcreco.sparse import jit


def test_threads_that_launch_kernels_together_get_their_own_results() -> None:
    torch.manual_seed(0)
    conv = sparse.SubmanifoldConv(3, 16)
    clouds = [torch.randint(0, 12, (700, 4)).int() % torch.tensor([2, 12, 12, 12]).int() for _ in range(8)]

    def run(coords: torch.Tensor) -> torch.Tensor:
        return conv(sparse.voxelize(coords, coords[:, 1:].float())[0]).features

    expected = [run(coords) for coords in clouds]
    with ThreadPoolExecutor(4) as pool:
        for ours, alone in zip(pool.map(run, clouds * 5), expected * 5, strict=True):
            assert torch.equal(ours, alone)


def test_kernels_run_on_torchs_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert jit.launch(numba.get_num_threads) == 1
        torch.set_num_threads(2)
        assert jit.launch(numba.get_num_threads) == min(2, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(before)


def test_numba_leaves_torch_its_number_of_threads() -> None:
    """In a new process: numba starts its threads once."""
    script = "import numba, torch; from hpcreco.sparse import jit; torch.set_num_threads(1)\n"
    script += "for _ in range(2): print(jit.launch(numba.get_num_threads), torch.get_num_threads())"
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    output = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert output.split() == ["1", "1", "1", "1"]


def test_functions_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def no_locator(function: object, **options: object) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", no_locator)

    @jit.compiled()
    def twice(x: int) -> int:
        return 2 * x

    assert twice(21) == 42


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_openmp_threads_do_not_spin_unless_asked_to(given: str | None, expected: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-c", "import hpcreco, os; print(os.environ['OMP_WAIT_POLICY'])"]
    assert subprocess.check_output(command, env=environment, text=True).strip() == expected
