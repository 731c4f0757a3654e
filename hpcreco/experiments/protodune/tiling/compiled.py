"""numba where it is installed, plain Python where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)

try:
    import numba
    from llvmlite import ir
    from numba.extending import intrinsic, register_jitable
except ImportError:
    numba = None

HAVE_NUMBA = numba is not None


def compiled(function: F) -> F:
    """Compile on first call, releasing the GIL, cached on disk where some folder can be written."""
    if numba is None:
        return function
    try:
        return numba.njit(nogil=True, no_cfunc_wrapper=True, cache=True)(function)
    except RuntimeError:  # numba found no writable folder for its cache (read-only image without a home)
        return numba.njit(nogil=True)(function)


def inner(function: F) -> F:
    """Compile with the compiled functions that call it; to Python it stays what it is.

    An entrance for Python, with the arrays that these functions take, would take a quarter of the time to compile.
    """
    if numba is None:
        return function
    return register_jitable(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def _take(counter: Any) -> Any:
    """The value of counter[0], int64, and one more in its place; no two threads are given the same."""
    value = counter[0]
    counter[0] += 1
    return value


def _atomic(typing: Any, counter: Any) -> tuple[Any, Callable]:
    """The same as one instruction."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return numba.types.int64(counter), code


take = _take if numba is None else intrinsic(_atomic)
