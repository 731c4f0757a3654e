"""The passes of BatchNorm over a feature matrix as Triton kernels, and what lies between them; the same functions as
`plain_rows`, with a fifth of its launches. Matrices are contiguous.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hpcreco.nn import gpu_kernels
from hpcreco.nn.plain_rows import line, parameter_gradients
from hpcreco.sparse.gpu.launch import on

__all__ = [
    "activate",
    "coefficients",
    "gradient",
    "gradient_moments",
    "line",
    "moments",
    "parameter_gradients",
    "remember",
    "slopes",
]

ENTRIES = 2048
"""Entries of a matrix that a program works on at a time."""
PROGRAMS, LEAST_ROWS = 512, 256
"""Sums over rows are shared out over so many programs at most, each with so many rows at least."""


def moments(x: Tensor) -> Tensor:
    """See plain_rows.moments."""
    return _sums(gpu_kernels.moments, x)


def gradient_moments(grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """See plain_rows.gradient_moments."""
    return _sums(gpu_kernels.gradient_moments, grad, x, scale, shift, LEAK=leakiness)


def _sums(kernel: Any, *tensors: Tensor, **constants: float) -> Tensor:
    n, c = tensors[0].shape
    programs = max(1, min(PROGRAMS, n // LEAST_ROWS))
    width = min(128, _power_of_two(c))
    partial = tensors[0].new_empty(programs, 2, c, dtype=torch.float64)
    with on(partial.device):
        kernel[(programs, -(-c // width))](
            partial,
            *tensors,
            n,
            c,
            -(-n // programs),
            **constants,
            BLOCK_R=ENTRIES // width,
            BLOCK_C=width,
            enable_fp_fusion=True,
        )
    return partial[0] if programs == 1 else partial.sum(0)


def activate(x: Tensor, scale: Tensor, shift: Tensor, leakiness: float) -> Tensor:
    """See plain_rows.activate."""
    return _entries(gpu_kernels.activate, x, scale, shift, LEAK=leakiness)


def gradient(
    grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor, leakiness: float
) -> Tensor:
    """See plain_rows.gradient."""
    return _entries(gpu_kernels.gradient, grad, x, scale, shift, slope, offset, LEAK=leakiness)


def _entries(kernel: Any, *tensors: Tensor, **constants: float) -> Tensor:
    out = torch.empty_like(tensors[0])
    if out.numel():
        with on(out.device):
            kernel[(-(-out.numel() // ENTRIES),)](
                out, *tensors, out.numel(), out.shape[1], **constants, BLOCK=ENTRIES, enable_fp_fusion=True
            )
    return out


def coefficients(sums: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See plain_rows.coefficients."""
    c = len(weight)
    wide, narrow, statistics = sums.new_empty(4, c), weight.new_empty(2, c), torch.empty_like(sums)
    with on(sums.device):
        gpu_kernels.coefficients[_blocks(c)](
            wide, narrow, statistics, sums, weight, bias, c, EPS=eps, BLOCK=_width(c), enable_fp_fusion=True
        )
    return wide, narrow, statistics


def slopes(total: Tensor, wide: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """See plain_rows.slopes."""
    c = total.shape[1]
    narrow = total.new_empty(2, c, dtype=dtype)
    with on(total.device):
        gpu_kernels.slopes[_blocks(c)](narrow, total, wide, sums, c, BLOCK=_width(c), enable_fp_fusion=True)
    return narrow


def remember(mean: Tensor, variance: Tensor, statistics: Tensor, change: float) -> None:
    """See plain_rows.remember."""
    c = len(mean)
    with on(mean.device):
        gpu_kernels.remember[_blocks(c)](
            mean, variance, statistics, c, CHANGE=change, BLOCK=_width(c), enable_fp_fusion=True
        )


def _width(c: int) -> int:
    return min(1024, _power_of_two(c))


def _blocks(c: int) -> tuple[int]:
    return (-(-c // _width(c)),)


def _power_of_two(number: int) -> int:
    """The smallest that is not below."""
    return 1 << (number - 1).bit_length()
