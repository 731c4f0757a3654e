"""What the machine gives: GPUs, cores and memory, folders that can be written, locks on files."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from hpcreco.doctor.asking import ask
from hpcreco.doctor.finding import BROKEN, MISSING, WORKS, Finding
from hpcreco.doctor.libraries import REINSTALL

GPU = """
import torch
if not torch.version.cuda:
    print("none used: torch is a CPU build")
elif not torch.cuda.is_available():
    reason = "no reason given"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        reason = str(error).split(". ")[0].strip()
    if "too old" in reason: raise SystemExit(f"CUDA {torch.version.cuda} of torch: {reason}")
    print("none visible to torch:", reason)
else:
    torch.ones(1, device="cuda")
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        print(f"{i}: {p.name}, {p.total_memory / 2**30:.0f} GiB, compute capability {p.major}.{p.minor};", end=" ")
    from hpcreco.sparse import paths
    print("CUDA", torch.version.cuda + "; native sparse convolutions by", paths.described(torch.device("cuda", 0)))
"""
#: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
DRIVER = "the driver must fit torch's CUDA: CUDA 13 needs one of the 580 series or newer, CUDA 12 one of 525 or newer"
FILE_LOCKING = """
import h5py, os, sys
path = os.path.join(sys.argv[1], "probe.h5")
with h5py.File(path, "w") as f: f["x"] = 1
with h5py.File(path, "r") as a, h5py.File(path, "r") as b: assert a["x"][()] == b["x"][()] == 1
print("a file is written, locked and read by two readers; HDF5_USE_FILE_LOCKING =",
      os.environ.get("HDF5_USE_FILE_LOCKING", "(unset)"))
"""


def examine() -> list[Finding]:
    """GPUs, cores and memory, folders that must be writable, HDF5's file locks."""
    return [
        examine_gpu(),
        Finding("cores, memory", WORKS, cores_and_memory()),
        *examine_caches(),
        examine_locking(),
    ]


def examine_gpu() -> Finding:
    """GPUs that torch can use; none is no fault."""
    works, said = ask(GPU) if find_spec("torch") else (True, "unknown without torch")
    gpu = Finding("GPU", WORKS if works else BROKEN, said, "" if works else DRIVER, False)
    if works and said.startswith(("none", "unknown")):
        on_gpus = (
            "on a GPU node ask the job for GPUs, and the container's runtime too (Apptainer: --nv)"
            if said.startswith("none visible")
            else "for GPUs install torch's CUDA build"
        )
        gpu = replace(gpu, state=MISSING, remedy=f"everything runs on the CPU too; {on_gpus}")
    return gpu


def cores_and_memory() -> str:
    """Cores this process may use, thread settings, memory of the machine and of the job's limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = [
        f"{name}={os.environ[name]}"
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        if name in os.environ
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    allowed = f", this job may use {int(text) / 2**30:.1f} GiB" if text.isdigit() else ""
    return f"{cores} cores, {memory:.1f} GiB{allowed}" + (f"; {', '.join(threads)}" if threads else "")


def examine_caches() -> list[Finding]:
    """Folders where compiled kernels and wheels are kept; unwritable ones cost minutes at every start."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111  (raises nothing)
    beside = Path(__file__).parent.parent
    # numba's own order: the named folder, __pycache__ beside the source, the user's cache
    named = os.environ.get("NUMBA_CACHE_DIR")
    kernels = Path(named) if named else beside if os.access(beside, os.W_OK) else cache / "numba"
    return [
        examine_folder("wheel cache", cache / "hpcreco", "set XDG_CACHE_HOME to a writable folder"),
        examine_folder(
            "numba's cache", kernels, "set NUMBA_CACHE_DIR to a writable folder, or kernels are compiled anew"
        ),
    ]


def examine_folder(name: str, folder: Path, remedy: str) -> Finding:
    """Whether ``folder``, or the nearest parent that exists, can be written."""
    existing = folder
    while not os.path.exists(existing) and existing != existing.parent:  # noqa: PTH110  (raises nothing)
        existing = existing.parent
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".hpcreco-doctor-"):
            return Finding(name, WORKS, f"{folder} is writable", needed=False)
    except OSError as error:
        return Finding(name, BROKEN, f"{folder}: {error.strerror}", remedy, False)


def examine_locking() -> Finding:
    """Whether HDF5 can lock files where the user stands; some parallel file systems cannot."""
    name, remedy = "HDF5 file locking", "export HDF5_USE_FILE_LOCKING=FALSE in the job script"
    if find_spec("h5py") is None:
        return Finding(name, MISSING, "unknown without h5py", REINSTALL)
    place = Path.cwd()
    try:
        place = place if os.access(place, os.W_OK) else Path(tempfile.gettempdir())
        with tempfile.TemporaryDirectory(dir=place, prefix=".hpcreco-doctor-") as folder:
            works, said = ask(FILE_LOCKING, folder)
    except OSError as error:  # no folder at all
        return Finding(name, BROKEN, f"{place}: {error.strerror}", "set TMPDIR to a writable folder")
    return Finding(name, WORKS if works else BROKEN, f"{place}: {said}", "" if works else remedy)
