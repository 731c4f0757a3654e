"""Memory: the most that a block of code took, and what is free."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

_PERIOD = 0.002  # seconds between two looks, where the kernel does not keep the peak for us
_SLACK = 4 << 20  # bytes that other threads may take between a reset of the peak and the look at it


class Peak:
    """Largest memory while the block runs, in `bytes` after it: the process's on a CPU, the device's on a GPU.

    Linux keeps a process's peak and lets it begin anew; where it may not (some containers), a thread looks often.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0.0
        self._device = device
        self._done = threading.Event()
        self._looker: threading.Thread | None = None

    def __enter__(self) -> Peak:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif not _begins_anew():
            self._looker = threading.Thread(target=self._look, daemon=True)
            self._looker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.bytes = float(torch.cuda.max_memory_reserved(self._device))
        elif self._looker is None:
            self.bytes = _status("VmHWM")
        else:
            self.bytes = max(self.bytes, _resident())
            self._done.set()
            self._looker.join()

    def _look(self) -> None:
        while not self._done.wait(_PERIOD):
            self.bytes = max(self.bytes, _resident())


def _begins_anew() -> bool:
    """Reset the process's peak; whether it could be, which only the look at it tells."""
    try:  # https://docs.kernel.org/filesystems/proc.html: 5 resets VmHWM
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") - _status("VmRSS") < _SLACK
    except (OSError, StopIteration):
        return False


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line for line in lines if line.startswith(field)).split()[1])


def _resident() -> float:
    """Bytes that the process holds now; without /proc the most it ever held."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return 1024 * float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def available(device: torch.device) -> float:
    """Bytes that are free."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return float("inf")
