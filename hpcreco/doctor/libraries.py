"""The libraries, each with a small program that proves that it works here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec

from hpcreco.doctor.asking import ask
from hpcreco.doctor.finding import BROKEN, MISSING, WORKS, Finding


@dataclass(frozen=True)
class Probe:
    """A library, the program that proves it works by printing one line about it, and the remedy when it does not."""

    module: str
    program: str
    remedy: str
    needed: bool = True
    name: str = ""


def examine_all() -> list[Finding]:
    """All libraries, two at a time: they mostly wait for the disk."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(examine, PROBES))


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
from hpcreco.collective import shared_memory
shared_memory.settle(1)
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
