"""Compiles the Triton kernels for a GPU that need not be there, as they are launched; a line of JSON for each.

python tests/unit/sparse/gpu/compiling.py 80 90      compute capabilities 8.0 and 9.0
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from hpcreco.nn import gpu_kernels, gpu_rows
from hpcreco.sparse.gpu import kernels, launch
from hpcreco.sparse.tables import Table

ROWS, OFFSETS = 5000, 27


class PretendedGpu:
    """What Triton asks its driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # each has a cache of its own

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        return divmod(self.capability, 10)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


class Compiled:
    """Takes a kernel's place: compiles instead of launching, and tells what came out."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability = kernel, capability

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compile_(*arguments: Any, **options: Any) -> None:
            made = self.kernel.warmup(*arguments, grid=grid, **options)
            ptx = made.asm["ptx"]
            told = {
                "kernel": self.kernel.__name__,
                "capability": self.capability,
                "types": [str(a.dtype) for a in arguments if isinstance(a, torch.Tensor)],
                "precision": options.get("PRECISION"),
                "tensor cores": len(re.findall(r"\bmma\.sync|wgmma\.mma_async", ptx)),
                "loads ahead": ptx.count("cp.async"),
                "machine code": len(made.asm["cubin"]),
                "shared": made.metadata.shared,
            }
            print(json.dumps(told), flush=True)

        return compile_


def launch_all() -> None:
    """Every kernel as the package launches it, on tensors that are never read."""
    keys = torch.arange(ROWS)
    table = Table(torch.full((OFFSETS, ROWS), -1, dtype=torch.int32), ROWS)
    launch.neighbours(keys, torch.arange(OFFSETS) - OFFSETS // 2)
    launch.ordered(table)
    ordered = Table(table.rows, ROWS, torch.arange(ROWS).int())
    for dtype, tf32, c_in, c_out in (
        (torch.bfloat16, False, 48, 32),
        (torch.float32, True, 64, 64),
        (torch.float32, False, 3, 64),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x, grad = torch.zeros(ROWS, c_in, dtype=dtype), torch.zeros(ROWS, c_out, dtype=dtype)
        weight, base = torch.zeros(OFFSETS, c_in, c_out, dtype=dtype), torch.zeros(ROWS, c_out)
        launch.convolve(x, weight, ordered, base, torch.float32)
        launch.weight_gradient(x, grad, ordered)
    batch_norm()


def batch_norm() -> None:
    """The kernels of BatchNorm."""
    x, c = torch.zeros(ROWS, 48), torch.zeros(48)
    gpu_rows.moments(x)
    sums = torch.zeros(97, dtype=torch.float64)
    wide, narrow, statistics = gpu_rows.coefficients(sums, c, c, 1e-4)
    gpu_rows.activate(x, *narrow, 0.1)
    total = gpu_rows.gradient_moments(x, x, *narrow, 0.1)
    through = gpu_rows.slopes(total, wide, sums, torch.float32)
    gpu_rows.gradient(x, x, *narrow, *through, 0.1)
    gpu_rows.remember(c, c, statistics, 0.01)


if __name__ == "__main__":
    plain = [
        (module, name, kernel)
        for module in (kernels, gpu_kernels)
        for name, kernel in vars(module).items()
        if isinstance(kernel, triton.JITFunction)
    ]
    for word in sys.argv[1:]:
        driver.set_active(PretendedGpu(int(word)))
        for module, name, kernel in plain:
            setattr(module, name, Compiled(kernel, int(word)))
        launch_all()
