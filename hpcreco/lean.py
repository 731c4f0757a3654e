"""Starts that open few files: hundreds of ranks that start at once all ask one file system.

Two things that libraries do at their start serve nobody here, and are left out: looking through the metadata of every
installed package for plugins, and importing torch's compiler, a third of all modules, when an optimizer is built.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, MutableMapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

#: what libraries call their switches for plugins; hpcreco runs on the devices that torch itself knows
SCANS = {"PYDANTIC_DISABLE_PLUGINS": "__all__", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
COMPILER = "torch._dynamo"

_loading = threading.RLock()


def without_scans(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell libraries that are not yet imported not to look for plugins; what the user has set stays."""
    for name, value in SCANS.items():
        environment.setdefault(name, value)


def without_compiler() -> None:
    """Let optimizers be built and step without torch's compiler; whoever compiles a model still finds it.

    Optimizers import the compiler only to keep their methods out of it. Until something else of it is asked for, a
    module stands in that does just that. Nothing is changed when it is imported already or torch has none.
    """
    if COMPILER in sys.modules:
        return
    import torch

    spec = importlib.util.find_spec(COMPILER)
    if spec is None or spec.loader is None:
        return
    module = _Postponed(COMPILER)
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    module.__package__, module.__path__ = COMPILER, list(spec.submodule_search_locations or ())
    sys.modules[COMPILER] = vars(torch)[COMPILER.rpartition(".")[2]] = module
    sys.meta_path.insert(0, _PartsOf(module))


class _Postponed(ModuleType):
    """A package that is executed when an attribute is asked for that it cannot answer by itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of every module by `inspect`
            raise AttributeError(name)
        if name in _ANSWERS:
            return _ANSWERS[name]
        self.execute()
        return getattr(self, name)

    def execute(self) -> None:
        """Become the package itself."""
        with _loading:
            if type(self) is not _Postponed:  # another thread was faster
                return
            sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _PartsOf)]
            self.__class__ = ModuleType  # type: ignore[assignment]
            cast(Loader, cast(ModuleSpec, self.__spec__).loader).exec_module(self)


def _undecorated(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
    return function


#: the compiler's functions that the optimizers of torch call, where nothing is being compiled
_ANSWERS: dict[str, Callable[..., Any]] = {"disable": _undecorated, "graph_break": lambda: None}


class _PartsOf(MetaPathFinder):
    """Sees to it that a postponed package is executed before the first of its modules is imported, as Python does."""

    def __init__(self, package: _Postponed) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(self._package.__name__ + "."):
            return None
        self._package.execute()
        imported = sys.modules.get(name)
        return None if imported is None else ModuleSpec(name, _Imported(imported))


class _Imported(Loader):
    """Gives a module that its package has imported meanwhile, and does not execute it a second time."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
