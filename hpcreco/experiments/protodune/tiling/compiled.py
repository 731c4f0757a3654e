"""numba where it is installed, plain Python where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)

try:
    import numba
except ImportError:
    numba = None

HAVE_NUMBA = numba is not None


def compiled(function: F) -> F:
    """Compile on first call, releasing the GIL, cached on disk where some folder can be written."""
    if numba is None:
        return function
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no writable folder for its cache (read-only image without a home)
        return numba.njit(nogil=True)(function)
