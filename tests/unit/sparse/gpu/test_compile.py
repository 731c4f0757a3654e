"""Every Triton kernel compiles to machine code for the GPUs of clusters, on a machine without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NARROW = {"torch.bfloat16", "torch.float16"}


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile(capability: int, tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    script = Path(__file__).with_name("compiling.py")
    run = subprocess.run(
        [sys.executable, script, str(capability)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    of_convolution = {"search", "patterns", "occupy", "convolve", "weight_gradient"}
    of_batch_norm = {
        "moments",
        "gradient_moments",
        "activate",
        "gradient",
        "coefficients",
        "slopes",
        "remember",
    }
    assert {told["kernel"] for told in found} == of_convolution | of_batch_norm
    for told in found:
        assert told["capability"] == capability
        assert told["machine code"] > 1000
        assert told["shared"] <= 99 * 1024  # what the smallest of them gives a program
        if told["kernel"] in ("convolve", "weight_gradient"):
            narrow = bool(NARROW & set(told["types"]))
            assert bool(told["tensor cores"]) == (narrow or told["precision"] == "tf32")
            assert told["loads ahead"]
