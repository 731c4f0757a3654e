"""MPI begun and ended, and what may be wrong with it said before MPI ends the process for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpcreco import world as _world
from hpcreco.collective import shared_memory
from hpcreco.collective.mpi import Mpi
from hpcreco.collective.operations import Alone, Collective
from hpcreco.world import World, WorldError


def connect(world: World | None = None) -> Collective:
    """The collective of the promised world: alone for one process, MPI for more.

    Raises WorldError, in one sentence naming the likely cause, when other processes came up than promised.
    """
    world = _world.detect() if world is None else world
    if world.size == 1:
        return Alone()
    promised = f"the launcher ({world.launcher}) promised {world.size} processes but"
    if world.launcher == "torchrun":
        raise WorldError(f"{promised} starts no MPI; start file-wise work with mpiexec or srun")
    try:
        MPI = _begin(world, promised)
    except (ImportError, RuntimeError) as error:
        if isinstance(error, WorldError):
            raise
        raise WorldError(f"{promised} mpi4py does not load ({error}); see `hpcreco doctor`") from error
    real = MPI.COMM_WORLD.Get_size()
    if real != world.size:
        raise _refusal(world, f"{promised} MPI sees {real}: {_likely_cause(world)}")
    return Mpi(MPI.COMM_WORLD.Dup())


def finish() -> None:
    """End MPI on every rank, if it was begun; all ranks call this, and none of the operations above afterwards."""
    from mpi4py import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()


def _begin(world: World, promised: str) -> Any:
    """mpi4py's MPI, begun; what MPI_Init would end the process for is dealt with before."""
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI

    if MPI.Is_initialized():
        return MPI
    library = MPI.Get_library_version()
    if library.startswith("MPICH"):  # Cray's begins otherwise
        if _world.only_pmix() and not _speaks_pmix():
            raise _refusal(
                world, f"{promised} speaks PMIx, which this MPICH does not: {_likely_cause(world)}"
            )
        if world.launcher == "srun" and "ofi" in library:
            # MPICH 5 tells the others its UCX address with a rest of uninitialised memory in it, which may make the
            # line longer than the 1024 characters that Slurm's pmi2 reads at once; libfabric's addresses are short.
            os.environ.setdefault("MPIR_CVAR_CH4_NETMOD", "ofi")
        if lacking := shared_memory.settle(world.local_size):
            raise _refusal(world, f"{promised} {lacking}", of_node=True)
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    return MPI


def _speaks_pmix() -> bool:
    """Whether the MPI library brought a PMIx client with it into this process."""
    try:
        return "libpmix" in Path("/proc/self/maps").read_text()
    except OSError:  # nobody can tell: MPI_Init will
        return True


def _refusal(world: World, message: str, of_node: bool = False) -> WorldError:
    """An error that every rank raises, perhaps of one node only, and its first rank alone says."""
    error = WorldError(message)
    vars(error).update(everywhere=not of_node, quiet=(world.local_rank if of_node else world.rank) != 0)
    return error


def _likely_cause(world: World) -> str:
    if world.launcher == "srun":
        return "write srun --mpi=pmi2 (for MPICH; another MPI may want another that `srun --mpi=list` names)"
    return "this mpiexec belongs to another MPI than mpi4py's, use the one of the same environment"
