"""Seconds of a call, and since the start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROUNDS = 3
ENOUGH = 3.0  # seconds after which a call is not repeated


def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few calls: what else runs on the machine only adds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
        if sum(taken) > ENOUGH:
            break
    return min(taken)


def uptime() -> float:
    """Seconds since this process was started."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.process_time()
