"""``hpcreco doctor``: what works on this machine, and what to do about what does not.

Every library is tried in a process of its own: one that crashes or hangs while it loads is a line of the
table, not the end of it, and this module stays free of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from hpcreco import version, world

WORKS, MISSING, BROKEN = "works", "missing", "broken"
PATIENCE = 120  # seconds for one library; the first import from a shared file system is slow

#: variables by which a launcher tells a process that it is a rank; a probe is not one
LAUNCHER_PREFIXES = ("PMI", "PMIX", "OMPI_", "MPI_LOCAL", "SLURM_", "HYDRA", "HYDI")


@dataclass(frozen=True)
class Finding:
    """One line of the table. ``needed``: whether hpcreco cannot do its main job without it."""

    name: str
    state: str
    detail: str = ""
    remedy: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Probe:
    """A library, the program that proves it works by printing one line about it, and the remedy when it does not."""

    module: str
    program: str
    remedy: str
    needed: bool = True
    name: str = ""


NUMBA = """
import numba, numpy
@numba.njit
def add(x): return x.sum()
assert add(numpy.ones(3)) == 3
print(numba.__version__, "- compiles,", numba.config.NUMBA_NUM_THREADS, "threads")
"""
TORCH = """
import torch
cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
assert float((torch.ones(8, 8) @ torch.ones(8, 8))[0, 0]) == 8
print(torch.__version__, "-", cuda + ",", torch.get_num_threads(), "threads")
"""
H5PY = """
import h5py
print(h5py.__version__, "- HDF5", h5py.version.hdf5_version)
"""
# After mpi4py and Horovod are loaded, /proc/self/maps says which MPI they got: it must be one and the same.
LIBMPI = """
found = {line.split()[-1] for line in open("/proc/self/maps") if "/libmpi" in line and "libmpicxx" not in line}
if len(found) > 1: raise SystemExit("two MPI libraries in one process: " + ", ".join(sorted(found)))
library = found.pop() if found else "no libmpi"
abi = "MPICH ABI" if library.rpartition("/")[2].startswith("libmpi.so.12") else "not the MPICH ABI"
"""
MPI4PY = f"""
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
{LIBMPI}
import os
name = MPI.Get_library_version().split(chr(10))[0].replace(chr(9), " ").strip(chr(0))
print(mpi4py.__version__, "-", " ".join(name.split()) + ",", os.path.realpath(library), f"({{abi}})")
"""
HOROVOD = f"""
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
import horovod, horovod.torch as hvd
{LIBMPI}
if not hvd.mpi_built(): raise SystemExit("built without MPI")
hvd.init()
import torch
assert float(hvd.allreduce(torch.ones(1), op=hvd.Sum)) == hvd.size()
gpu = torch.cuda.is_available()
if gpu and hvd.nccl_built(): assert float(hvd.allreduce(torch.ones(1, device="cuda"), op=hvd.Sum)) == hvd.size()
hint = ": gradients of GPUs pass through the CPU (HPCRECO_CUDA=torch tools/setup horovod)"
print(horovod.__version__, "- with MPI,", "NCCL" if hvd.nccl_built() else "no NCCL" + hint * gpu)
"""
MINKOWSKI = """
import MinkowskiEngine as ME, torch
gpu = torch.cuda.is_available()
for device in ["cpu"] + ["cuda"] * (gpu and ME.is_cuda_available()):
    sites = torch.tensor([[0, 0, 0, 0], [0, 5, 5, 5]], dtype=torch.int32, device=device)
    x = ME.SparseTensor(torch.ones(2, 1, device=device), sites)
    assert ME.MinkowskiConvolution(1, 1, kernel_size=3, dimension=3).to(device)(x).F.shape == (2, 1)
hint = " only: on a GPU use sparse.backend: native (or HPCRECO_CUDA=torch tools/setup minkowski)"
print(ME.__version__, "-", "CPU and CUDA" if ME.is_cuda_available() else "CPU" + hint * gpu)
"""
GEOMETRIC = """
import torch_geometric
print(torch_geometric.__version__)
"""
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
FILE_LOCKING = """
import h5py, os, sys
path = os.path.join(sys.argv[1], "probe.h5")
with h5py.File(path, "w") as f: f["x"] = 1
with h5py.File(path, "r") as a, h5py.File(path, "r") as b: assert a["x"][()] == b["x"][()] == 1
print("a file is written, locked and read by two readers; HDF5_USE_FILE_LOCKING =",
      os.environ.get("HDF5_USE_FILE_LOCKING", "(unset)"))
"""
TWO_RANKS = "from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(1))"

#: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
DRIVER = "the driver must fit torch's CUDA: CUDA 13 needs one of the 580 series or newer, CUDA 12 one of 525 or newer"
REINSTALL = "run tools/setup in the checkout, or: pip install hpcreco"
PROBES = (
    Probe("numpy", "import numpy; print(numpy.__version__)", REINSTALL),
    Probe(
        "torch",
        TORCH,
        "pip install torch (a CPU build is enough; an unpinned one may bring gigabytes of CUDA)",
    ),
    Probe("numba", NUMBA, REINSTALL),
    Probe("h5py", H5PY, REINSTALL, name="h5py, HDF5"),
    Probe(
        "mpi4py",
        MPI4PY,
        "pip install mpi4py mpich; on a cluster load its MPICH-ABI module (cray-mpich-abi) before you run",
        name="mpi4py, MPI",
    ),
    Probe(
        "horovod",
        HOROVOD,
        "tools/setup horovod builds it (a C++ compiler is needed); until then several ranks train with --backend ddp",
        needed=False,
        name="Horovod",
    ),
    Probe(
        "MinkowskiEngine",
        MINKOWSKI,
        "tools/setup minkowski builds it; sparse.backend: native does the same without it",
        needed=False,
        name="MinkowskiEngine",
    ),
    Probe(
        "torch_geometric",
        GEOMETRIC,
        "pip install torch-geometric, for graph networks only",
        needed=False,
        name="torch-geometric",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``hpcreco doctor``."""
    parser.description = "Say what works on this machine, and what to do about what does not."
    parser.add_argument(
        "--json", action="store_true", help="the same findings as JSON, for scripts and bug reports"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Run it where the job will run: a login node and a compute node differ.\n\n"
        "examples:\n"
        "  hpcreco doctor\n"
        "  mpiexec -n 2 hpcreco doctor         # and do these ranks see each other?\n"
        "  srun -N 2 -n 8 hpcreco doctor --json > doctor.json\n\n"
        "exit code: 0 when all that is needed works (optional parts may be missing), 1 otherwise"
    )


def run(args: argparse.Namespace) -> int:
    """Examines the machine; rank 0 prints. Returns 0 when nothing needed is missing and nothing at all is broken."""
    here, reached = examine_world()
    if here is not None and here.rank > 0:
        return 0
    findings = [*versions(), *examine_libraries(), reached, examine_launch(here), *examine_machine()]
    healthy = not any(f.state == BROKEN or (f.needed and f.state == MISSING) for f in findings)
    if args.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        show(findings, healthy)
    return 0 if healthy else 1


def probe_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what makes a process a rank of a launcher's job."""
    return {k: v for k, v in environ.items() if not k.startswith(LAUNCHER_PREFIXES)} | {
        "PYTHONWARNINGS": "ignore"
    }


def ask(program: str, *arguments: str, launcher: tuple[str, ...] = ()) -> tuple[bool, str]:
    """Runs a small Python program; (True, what it printed) or (False, the last line of its complaint)."""
    command = [*launcher, sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=probe_environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PATIENCE} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    lines = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip()]
    killed = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return False, lines[-1].strip() if lines else killed


def versions() -> list[Finding]:
    """hpcreco and the interpreter."""
    return [
        Finding("hpcreco", WORKS, f"{version.described()} in {Path(__file__).parent}"),
        Finding("python", WORKS, f"{platform.python_version()} at {sys.executable}"),
    ]


def examine(probe: Probe) -> Finding:
    """Missing, broken or working: one library."""
    finding = Finding(probe.name or probe.module, MISSING, "not installed", probe.remedy, probe.needed)
    if find_spec(probe.module) is None:
        return finding
    works, said = ask(probe.program)
    return (
        replace(finding, state=WORKS, detail=said, remedy="")
        if works
        else replace(finding, state=BROKEN, detail=said)
    )


def examine_libraries() -> list[Finding]:
    """All libraries, two at a time: they mostly wait for the disk."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(examine, PROBES))


def examine_world() -> tuple[world.World | None, Finding]:
    """Who the launcher says we are, and whether that many processes really see each other."""
    try:
        promised = world.detect()
    except world.WorldError as error:
        return None, Finding("world", BROKEN, str(error), "start with mpiexec, srun or torchrun, not by hand")
    text = f"rank {promised.rank} of {promised.size}, {promised.local_size} on this node, launcher: {promised.launcher}"
    if promised.size == 1 or promised.launcher == "torchrun":
        return promised, Finding("world", WORKS, text)
    from hpcreco import collective

    try:
        ranks = collective.connect(promised)
        seen = ranks.gather(platform.node())
    except (world.WorldError, ImportError) as error:
        return promised, Finding(
            "world", BROKEN, f"{text}; {error}", "mpiexec and mpi4py must belong to the same MPI"
        )
    nodes = sorted(set(seen or []))
    return promised, Finding(
        "world", WORKS, f"{text}; {ranks.size} ranks see each other on {', '.join(nodes)}"
    )


def examine_launch(here: world.World | None) -> Finding:
    """Whether mpiexec starts two ranks that see each other (only asked from outside a launcher)."""
    if here is not None and here.size > 1:
        return Finding("mpiexec", WORKS, f"not tried: started by {here.launcher}", needed=False)
    # The mpiexec beside the interpreter belongs to its mpich wheel; PATH may lead to another MPI's.
    beside = Path(sys.executable).parent / "mpiexec"
    program = str(beside) if beside.exists() else shutil.which("mpiexec")
    if program is None:
        return Finding(
            "mpiexec", MISSING, "not found", "pip install mpich; on a cluster srun takes its place", False
        )
    works, said = ask(TWO_RANKS, launcher=(program, "-n", "2"))
    if works and said.split() == ["2", "2"]:
        return Finding("mpiexec", WORKS, f"{program}: two ranks see each other", needed=False)
    if works:
        said = "two ranks were started, each alone: mpiexec and mpi4py belong to different MPIs"
    return Finding(
        "mpiexec", BROKEN, f"{program}: {said}", "use the mpiexec of the MPI that mpi4py loads", False
    )


def examine_machine() -> list[Finding]:
    """GPUs, cores and memory, folders that must be writable, HDF5's file locks."""
    works, said = ask(GPU) if find_spec("torch") else (True, "unknown without torch")
    gpu = Finding("GPU", WORKS if works else BROKEN, said, "" if works else DRIVER, False)
    if works and said.startswith(("none", "unknown")):
        on_gpus = (
            "on a GPU node ask the job for GPUs, and the container's runtime too (Apptainer: --nv)"
            if said.startswith("none visible")
            else "for GPUs install torch's CUDA build"
        )
        gpu = replace(gpu, state=MISSING, remedy=f"everything runs on the CPU too; {on_gpus}")
    return [gpu, Finding("cores, memory", WORKS, cores_and_memory()), *examine_caches(), examine_locking()]


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
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    beside = Path(__file__).parent
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
    while not existing.exists() and existing != existing.parent:
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
    place = Path.cwd() if os.access(Path.cwd(), os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=place, prefix=".hpcreco-doctor-") as folder:
        works, said = ask(FILE_LOCKING, folder)
    return Finding(name, WORKS if works else BROKEN, f"{place}: {said}", "" if works else remedy)


def show(findings: list[Finding], healthy: bool) -> None:
    """Prints the table, its remedies under it, and one line that sums it up."""
    from rich.console import Console
    from rich.table import Table

    style: Mapping[str, str] = {WORKS: "green", MISSING: "yellow", BROKEN: "bold red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "state", "what was found, and what to do"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "part")
    escape: Callable[[str], str] = lambda text: text.replace("[", r"\[")  # noqa: E731
    for f in findings:
        optional = " (optional)" if f.state == MISSING and not f.needed else ""
        remedy = f"\n[italic]-> {escape(f.remedy)}[/]" if f.remedy and f.state != WORKS else ""
        table.add_row(f.name, f"[{style[f.state]}]{f.state}[/]{optional}", escape(f.detail) + remedy)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "\nhpcreco can work here" if healthy else "\nsomething needed is missing or broken (see the arrows)"
    )
