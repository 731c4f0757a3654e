"""numba as this package uses it: without the GIL, cached on disk; plain Python where numba is not installed."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)

try:
    import numba
    from numba.extending import register_jitable
except ImportError:
    numba = None

HAVE_NUMBA = numba is not None


def compiled(**options: Any) -> Callable[[F], F]:
    """`numba.njit` with `options`, compiled on first call, releasing the GIL, cached where some folder can be written.

    Numba takes a cached function for fresh as long as that function's own file is; this looks at the folders of what
    it uses, too. A constant from a folder that nothing else is used of goes unseen.
    """

    def decorate(function: F) -> F:
        if numba is None:
            return function
        jit = functools.partial(numba.njit, nogil=True, no_cfunc_wrapper=True, **options)
        try:
            dispatcher = jit(cache=True)(function)
        except RuntimeError:  # numba found no writable folder for its cache (read-only image without a home)
            return jit()(function)
        _watch(dispatcher, function)
        return dispatcher

    return decorate


def inner(function: F) -> F:
    """Compile with the compiled functions that call it; to Python it stays what it is.

    An entrance for Python, with the arrays that such functions take, would take a quarter of the time to compile; and
    without one, a function of numba's that Python calls all the same ends the process.
    """
    if numba is None:
        return function
    return register_jitable(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def _watch(dispatcher: Any, function: Callable) -> None:
    """Add the state of all folders that the function is made of to what its cache is compared with."""
    assert isinstance(function, FunctionType)
    file = getattr(dispatcher._cache, "_cache_file", None)  # noqa: SLF001 absent where NUMBA_DISABLE_JIT is set
    if file is None:
        return
    folders = {str(Path(function.__code__.co_filename).parent)}
    folders.update(filter(None, map(_folder, function.__globals__.values())))
    states = tuple(_state(folder) for folder in sorted(folders))
    file._source_stamp = (file._source_stamp, states)  # noqa: SLF001 numba has no way to say it


def _folder(value: object) -> str:
    """Folder of a module of this package, or of the one that a function comes from; empty for anything else."""
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    ours = isinstance(name, str) and name.startswith("hpcreco.") and name != __name__
    file = getattr(sys.modules.get(name), "__file__", None) if isinstance(name, str) and ours else None
    return str(Path(file).parent) if file else ""


@functools.cache
def _state(folder: str) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of all Python files of a folder."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))
