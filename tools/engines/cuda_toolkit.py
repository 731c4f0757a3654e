"""The CUDA toolkit that the engines are compiled with: the site's own, or NVIDIA's compiler from the package index.

torch brings the libraries and most headers as wheels, but neither the compiler nor a toolkit's layout. The missing
wheels are put into a throw-away folder, and links make a toolkit of both; the environment itself stays as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ARCHITECTURES = ("8.0", "9.0")  # A100 and H100; a later GPU compiles 9.0's PTX when it first runs
PARTS = (
    "nvcc,cccl,crt,nvvm,cudart"  # extras of the package cuda-toolkit: what compiles, and torch's CUDA runtime
)


@dataclass(frozen=True)
class Toolkit:
    """``home`` has bin/nvcc, include and lib64; ``nccl`` has include and lib."""

    home: Path
    nccl: Path

    def environment(self) -> dict[str, str]:
        """What the engines' builds read; NCCL's static library is not in its wheel."""
        return {
            "CUDA_HOME": str(self.home),
            "HOROVOD_CUDA_HOME": str(self.home),
            "HOROVOD_NCCL_HOME": os.environ.get("HOROVOD_NCCL_HOME", str(self.nccl)),
            "HOROVOD_NCCL_LINK": "SHARED",
            # Debug symbols and names are 58 of Horovod's 59 MB; what an import looks up stays.
            "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} -Wl,--strip-all".strip(),
        }


def chosen(wanted: str | None) -> str | None:
    """The CUDA version to build for, e.g. "13.0", or None for the CPU. SystemExit unless torch is of that version.

    wanted: a version, "torch" for torch's own, or nothing.
    """
    if not wanted:
        return None
    import torch

    has = torch.version.cuda
    if has is None or wanted not in ("torch", has):
        sys.exit(
            f"tools/engines: asked for CUDA {wanted}, but torch {torch.__version__} is "
            f"{'a CPU build' if has is None else f'built with CUDA {has}'}; install a torch of that CUDA "
            "(HPCRECO_TORCH and HPCRECO_CUDA for tools/setup)"
        )
    return has


def toolkit(version: str, folder: Path) -> Toolkit:
    """A toolkit of ``version`` (CUDA_HOME's if it is one, else made in ``folder``), and NCCL's wheel with a toolkit's
    links. SystemExit where the package index has no compiler of that version.
    """
    site = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    wheels = Path(metadata.distribution("torch").locate_file("nvidia"))
    nccl = folder / "nccl"
    link_tree(wheels / "nccl", nccl)
    link_names(nccl / "lib")
    if site and nvcc_version(Path(site)) == version:
        return Toolkit(Path(site), nccl)
    major = version.partition(".")[0]
    if int(major) < 13:
        sys.exit(
            f"tools/engines: the package index has no compiler for CUDA {version}: load the site's module, or point "
            f"CUDA_HOME to a toolkit {version} (CUDA_HOME is {site or 'not set'})"
        )
    release = metadata.version("cuda-toolkit")  # torch depends on it
    print(f"  bringing NVIDIA's compiler {release} (100 MB, for the build only)", flush=True)
    pip("install", "--target", str(folder / "wheels"), f"cuda-toolkit[{PARTS}]=={release}")
    home = folder / "wheels" / "nvidia" / f"cu{major}"
    link_tree(wheels / home.name, home)
    link_names(home / "lib")
    (home / "lib64").symlink_to("lib")
    return Toolkit(home, nccl)


def download(folder: Path) -> None:
    """Puts the compiler's wheels into ``folder``, for the torch whose wheels are there (and no other torch's)."""
    for wheel in sorted(
        folder.glob("cuda_toolkit-*.whl")
    ):  # none where torch's CUDA 12 names its parts one by one
        release = wheel.name.split("-")[1]
        pip("download", "--dest", str(folder), f"cuda-toolkit[{PARTS}]=={release}")


def pip(command: str, *arguments: str) -> None:
    """Runs pip of this environment quietly."""
    start = [sys.executable, "-m", "pip", command, "-qq", "--disable-pip-version-check"]
    subprocess.run([*start, *arguments], check=True)


def nvcc_version(home: Path) -> str | None:
    """The version of a toolkit, e.g. 13.0, as its compiler says it; None without one."""
    try:
        said = subprocess.run(
            [home / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else None


def link_tree(source: Path, target: Path) -> None:
    """For every file below ``source`` that ``target`` lacks, a link to it at the same place."""
    for path in source.rglob("*"):
        link = target / path.relative_to(source)
        if path.is_file() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def link_names(folder: Path) -> None:
    """libX.so beside every libX.so.N: wheels hold only what programs load, a linker looks for the short name."""
    for path in folder.glob("lib*.so.*"):
        short = folder / (path.name.partition(".so.")[0] + ".so")
        if not short.exists():
            short.symlink_to(path.name)
