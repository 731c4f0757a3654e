"""Which code computes the native backend's convolutions on a device: numba, Triton kernels or torch operations."""

from __future__ import annotations

import functools
import os
import warnings
from importlib.util import find_spec

import torch

from hpcreco.sparse.tensor import SparseError

VARIABLE = "HPCRECO_SPARSE_PATH"
PATHS = ("numba", "triton", "torch")
OLDEST = (8, 0)
"""Compute capability from which on the Triton kernels are used: the first with bfloat16 and TF32 products."""
OLDEST_TRITON = (3, 3)
"""Older ones stop with an error of their own in the pass that loads ahead; torch 2.7 brings 3.3."""


def choose(device: torch.device) -> str:
    """The path for a device: numba for CPU tensors, triton for GPUs that can run its kernels, torch for all else.

    HPCRECO_SPARSE_PATH=triton, torch or numba decides instead; unset, empty or "auto": the rule above. Raises
    SparseError for other values, and where the path that was asked for cannot be had.
    """
    asked = os.environ.get(VARIABLE, "") or "auto"
    if asked == "auto":
        if device.type == "cpu":
            return "numba"
        return "triton" if device.type == "cuda" and _fallback_reason(device.index or 0) is None else "torch"
    if asked not in PATHS:
        raise SparseError(f"{VARIABLE}: {asked!r} is not one of auto, {', '.join(PATHS)}")
    if asked == "numba" and device.type != "cpu":
        raise SparseError(f"{VARIABLE}: numba works on CPU tensors only, the data are on {device}; unset it")
    if asked == "triton" and (problem := triton_problem(device)):
        raise SparseError(
            f"{VARIABLE}: triton cannot be used on {device}: {problem}; unset it, or set it to torch"
        )
    return asked


def triton_problem(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on a device, in words; None if nothing is known to stand against it."""
    if find_spec("triton") is None:
        return (
            "triton is not installed (pip install 'hpcreco[gpu-kernels]'; torch's CUDA builds bring it along)"
        )
    if (version := triton_version()) < OLDEST_TRITON:
        return "triton {}.{} is too old, {}.{} (of torch 2.7) or newer is needed".format(
            *version, *OLDEST_TRITON
        )
    if interpreted():
        return None
    if device.type != "cuda":
        return "it compiles for GPUs only (TRITON_INTERPRET=1 runs its kernels on a CPU, slowly, for tests)"
    if torch.version.cuda and torch.cuda.get_device_capability(device) < OLDEST:
        return f"its kernels need compute capability {OLDEST[0]}.{OLDEST[1]} or newer"
    return None


def triton_version() -> tuple[int, int]:
    """Major and minor version of the Triton that is installed."""
    import triton

    major, minor, *_ = triton.__version__.split(".")
    return int(major), int(minor)


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def described(device: torch.device) -> str:
    """What computes on a device, and why it is not the Triton kernels where one could expect them; for `doctor`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = choose(device)
    name = {"numba": "numba kernels", "triton": "Triton kernels", "torch": "torch operations"}[path]
    if os.environ.get(VARIABLE, "auto") not in ("", "auto"):
        return f"{name} ({VARIABLE} is set)"
    reason = _fallback_reason(device.index or 0) if path == "torch" and device.type == "cuda" else None
    return f"{name}: {reason}" if reason else name


@functools.cache
def _fallback_reason(index: int) -> str | None:
    """Why a GPU gets torch operations, told once in a warning; None if it gets the Triton kernels.

    A first small kernel tells whether all that Triton needs is there, such as a C compiler and a place for its cache.
    """
    device = torch.device("cuda", index)
    problem = triton_problem(device)
    if problem is None:
        from hpcreco.sparse.gpu import launch

        try:
            launch.try_out(device)
        except Exception as error:  # noqa: BLE001 (of Triton, of the compiler it calls, of the driver)
            problem = f"a first kernel failed: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    if problem is not None:
        warnings.warn(
            f"sparse convolutions on {device} use torch operations, which are slower than Triton kernels: {problem}",
            stacklevel=2,
        )
    return problem
