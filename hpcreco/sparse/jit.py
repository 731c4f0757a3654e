"""How this package compiles numba functions and runs them on torch's number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba
import torch

# numba's fallback threading layer ("workqueue") must not be entered by two Python threads at once.
_one_at_a_time = threading.Lock()


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit(nogil=True, **options)` with an on-disk cache where some cache folder can be written.

    Numba keys the cache by the decorated function's own file: after an edit of a helper in another file,
    remove `__pycache__`.
    """

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(function, nogil=True, cache=True, **options)
        except RuntimeError:  # no writable cache folder, as in a read-only image without a home
            return numba.njit(function, nogil=True, **options)

    return decorate


def workers() -> int:
    """The number of threads kernels run on: torch's, so that one setting rules both."""
    return torch.get_num_threads()


def launch(kernel: Callable, *arguments: Any, small: bool = False) -> Any:
    """Call a parallel kernel on torch's number of threads, also beside other Python threads that launch
    kernels. small: on one thread, because the work takes less time than waking another; a kernel's result depends on
    the number of workers it is given, not on that of the threads.
    """
    with _one_at_a_time:
        threads = workers()
        numba.set_num_threads(1 if small else min(threads, numba.config.NUMBA_NUM_THREADS))
        if (
            workers() != threads
        ):  # numba, as it starts its threads, sets the number of OpenMP's, which is torch's
            torch.set_num_threads(threads)
        return kernel(*arguments)
