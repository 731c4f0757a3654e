"""Compiled kernels beside other threads; how OpenMP threads wait."""

from __future__ import annotations

import os
import platform
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


ONE_STEP = """
import torch
from numba.core.dispatcher import Dispatcher
from hpcreco.nn import rows
from hpcreco.nn.uresnet import UResNet
from hpcreco.sparse import kernels, search

model, coords = UResNet(4, 2, repetitions=1), torch.randint(0, 9, (200, 4)).int()
model(coords, torch.randn(200, 3)).rows.sum().backward()
with torch.no_grad():
    model.eval()(coords, torch.randn(200, 3))
for module in (kernels, search, rows):
    for name, kernel in vars(module).items():
        if isinstance(kernel, Dispatcher) and len(kernel.signatures) > 1:
            print(name, *kernel.signatures)
"""


def test_a_network_of_one_type_compiles_every_kernel_once() -> None:
    """A whole number where another call gives a float makes numba compile anew."""
    assert subprocess.check_output([sys.executable, "-c", ONE_STEP], text=True) == ""


REUSE = """
import resource
import torch
from hpcreco.sparse import jit  # noqa

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made = [torch.ones(1 << 18) for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(5)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    """20 MiB are 5120 pages, which the system clears if they are given back."""
    assert int(subprocess.check_output([sys.executable, "-c", REUSE], text=True)) < 500


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_openmp_threads_do_not_spin_unless_asked_to(given: str | None, expected: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-c", "import hpcreco, os; print(os.environ['OMP_WAIT_POLICY'])"]
    assert subprocess.check_output(command, env=environment, text=True).strip() == expected
