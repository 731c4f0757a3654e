"""The edits that Horovod's and MinkowskiEngine's last releases need to build and run with today's torch and Python.

Both projects have stopped releasing, so the edits are kept here, named and small, and are applied to the unpacked
source distribution before it is built. An edit that does not find its text is an error: the source is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """In ``file``, ``old`` becomes ``new``; ``why`` is printed beside it when the patch is applied."""

    why: str
    file: str
    old: str
    new: str

    def apply(self, source: Path) -> None:
        """Edits ``source/file`` in place; LookupError when the old text is not there."""
        path = source / self.file
        text = path.read_text()
        if self.old not in text:
            raise LookupError(f"{path}: the text to patch ({self.old!r}: {self.why}) is not there")
        path.write_text(text.replace(self.old, self.new))


def cxx_standard(torch_version: tuple[int, int]) -> int:
    """The C++ standard that the headers of torch (major, minor) need."""
    return 20 if torch_version >= (2, 13) else 17


def horovod(torch_version: tuple[int, int]) -> list[Patch]:
    """Patches of Horovod 0.28.1 for ``torch_version`` (major, minor)."""
    standard = cxx_standard(torch_version)
    why = f"torch's headers need C++{standard}"
    # libmpi.so.12 of the MPICH wheel lies in <environment>/lib, four folders above horovod/torch/mpi_lib_v2*.so.
    # A relative path keeps a cached wheel working in another environment; a RUNPATH gives way to LD_LIBRARY_PATH
    # (a site's Cray MPICH).
    runpath = (
        f"set(CMAKE_CXX_STANDARD {standard})\n"
        "set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)\n"
        "set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)\n"
        'set(CMAKE_INSTALL_RPATH "$ORIGIN/../../../..;$ORIGIN/../../torch/lib")'
    )
    return [
        Patch(why + "; a relative RUNPATH", "CMakeLists.txt", "set(CMAKE_CXX_STANDARD 14)", runpath),
        Patch(
            why,
            "horovod/torch/CMakeLists.txt",
            "set(CMAKE_CXX_STANDARD 14)",
            f"set(CMAKE_CXX_STANDARD {standard})",
        ),
    ]


def minkowski() -> list[Patch]:
    """Patches of MinkowskiEngine 0.5.4."""
    moved = "Sequence lives in collections.abc since Python 3.10"
    importers = [
        "MinkowskiCoordinateManager.py",
        "MinkowskiTensorField.py",
        "MinkowskiCommon.py",
        "utils/quantization.py",
    ]
    old, new = "from collections import Sequence", "from collections.abc import Sequence"
    return [
        Patch(
            "setup.py removes an installed MinkowskiEngine before it builds",
            "setup.py",
            'run_command("pip", "uninstall", "MinkowskiEngine", "-y")\n',
            "",
        ),
        *(Patch(moved, f"MinkowskiEngine/{name}", old + "\n", new + "\n") for name in importers),
        Patch(
            moved,
            "MinkowskiEngine/MinkowskiKernelGenerator.py",
            old + ", namedtuple\n",
            "from collections import namedtuple\n" + new + "\n",
        ),
    ]
