"""How kernels meet torch: its numbers of threads, its arrays, its memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Where glibc allocates, let it keep up to 64 MiB of what is freed. It would give every larger tensor back to the
    system, which clears pages for the next: then making a matrix takes ten times as long as filling it. The numbers
    are those that glibc comes to by itself once a program has freed something large enough.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


keep_freed_memory()

# numba's fallback threading layer ("workqueue") must not be entered by two Python threads at once.
_one_at_a_time = threading.Lock()
# What numba was last told in this thread: telling it takes as long as a small kernel.
_set = threading.local()


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's numbers, contiguous, as kernels take them; its own memory where it is contiguous."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy()


def workers() -> int:
    """The number of threads kernels run on: torch's, so that one setting rules both."""
    return torch.get_num_threads()


def launch(kernel: Callable, *arguments: Any, small: bool = False) -> Any:
    """Call a parallel kernel on torch's number of threads, also beside other Python threads that launch
    kernels. small: on one thread, because the work takes less time than waking another; a kernel's result depends on
    the number of workers it is given, not on that of the threads.
    """
    wanted = 1 if small else min(workers(), numba.config.NUMBA_NUM_THREADS)
    with _one_at_a_time:
        if getattr(_set, "threads", None) != wanted:
            _set_threads(wanted)
        return kernel(*arguments)


def _set_threads(wanted: int) -> None:
    threads = workers()
    numba.set_num_threads(wanted)
    _set.threads = wanted
    if workers() != threads:  # numba, as it starts its threads, sets the number of OpenMP's, which is torch's
        torch.set_num_threads(threads)
