"""Who am I among how many: what the launcher promised, read from the environment alone.

Neither torch nor MPI is imported here, so every verb can ask before it decides what to load. The *promised*
size is what the launcher said it would start; `collective.connect` and the training backends compare it with
what really came up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


class WorldError(RuntimeError):
    """The environment contradicts itself, or the processes that came up are not the ones that were
    promised.
    """

    exit_code = 1


@dataclass(frozen=True)
class World:
    """One process among `size`; `local_rank` of `local_size` on its node; who launched it."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "none"  # "none" | "mpiexec" | "srun" | "torchrun"


@dataclass(frozen=True)
class Workers:
    """One file-wise worker among `count` = array tasks x ranks; `index` = array_index * world size + rank."""

    index: int
    count: int
    array_index: int
    array_count: int


def detect(environ: Mapping[str, str] = os.environ) -> World:
    """The world the launcher promised.

    The size is the first of PMI_SIZE, OMPI_COMM_WORLD_SIZE, WORLD_SIZE and SLURM_STEP_NUM_TASKS, and the
    ranks are read from the same launcher's variables: MPICH's mpiexec inside a Slurm allocation starts its
    proxies with srun, so Slurm's own counts there are those of the proxies. SLURM_NTASKS promises nothing: a
    batch script holds it outside any step.

    Raises WorldError when a size comes without a rank, or a rank is outside the size.
    """
    if "PMI_SIZE" in environ:
        return _checked(_from_pmi(environ))
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return _checked(
            World(
                rank=_integer(environ, "OMPI_COMM_WORLD_RANK"),
                size=_integer(environ, "OMPI_COMM_WORLD_SIZE"),
                local_rank=_integer(environ, "OMPI_COMM_WORLD_LOCAL_RANK", 0),
                local_size=_integer(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", 1),
                launcher="mpiexec",
            )
        )
    if "WORLD_SIZE" in environ:
        return _checked(_from_torchrun(environ))
    if "SLURM_STEP_NUM_TASKS" in environ:
        return _checked(
            World(
                rank=_integer(environ, "SLURM_PROCID"),
                size=_integer(environ, "SLURM_STEP_NUM_TASKS"),
                local_rank=_integer(environ, "SLURM_LOCALID", 0),
                local_size=_slurm_local_size(environ),
                launcher="srun",
            )
        )
    return World()


def workers(environ: Mapping[str, str] = os.environ) -> Workers:
    """This process among all file-wise workers: array task k of K counts as ranks k*size .. (k+1)*size-1 of
    K*size.

    Raises WorldError for an array that is not a regular range, whose task numbers cannot be turned into
    0..K-1.
    """
    world = detect(environ)
    array_index, array_count = _array_task(environ)
    return Workers(array_index * world.size + world.rank, array_count * world.size, array_index, array_count)


def only_pmix(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher speaks PMIx alone (`srun --mpi=pmix`), which an MPI without it cannot start under."""
    return "PMIX_RANK" in environ and "PMI_RANK" not in environ


def _from_pmi(environ: Mapping[str, str]) -> World:
    hydra = "MPI_LOCALRANKID" in environ  # set by MPICH's mpiexec, not by `srun --mpi=pmi2`
    slurm_step = not hydra and "SLURM_LOCALID" in environ
    return World(
        rank=_integer(environ, "PMI_RANK"),
        size=_integer(environ, "PMI_SIZE"),
        local_rank=_integer(environ, "SLURM_LOCALID" if slurm_step else "MPI_LOCALRANKID", 0),
        local_size=_slurm_local_size(environ) if slurm_step else _integer(environ, "MPI_LOCALNRANKS", 1),
        launcher="srun" if slurm_step else "mpiexec",
    )


def _from_torchrun(environ: Mapping[str, str]) -> World:
    in_step = "SLURM_STEP_NUM_TASKS" in environ  # job scripts export WORLD_SIZE and leave the rank to srun
    rank = "RANK" if "RANK" in environ or not in_step else "SLURM_PROCID"
    local = "LOCAL_RANK" if "LOCAL_RANK" in environ or not in_step else "SLURM_LOCALID"
    return World(
        rank=_integer(environ, rank),
        size=_integer(environ, "WORLD_SIZE"),
        local_rank=_integer(environ, local, 0),
        local_size=_integer(environ, "LOCAL_WORLD_SIZE", 1) if not in_step else _slurm_local_size(environ),
        launcher="srun" if in_step else "torchrun",
    )


def _array_task(environ: Mapping[str, str]) -> tuple[int, int]:
    if "SLURM_ARRAY_TASK_ID" not in environ:
        return 0, 1
    task = _integer(environ, "SLURM_ARRAY_TASK_ID")
    count = _integer(environ, "SLURM_ARRAY_TASK_COUNT", 1)
    first = _integer(environ, "SLURM_ARRAY_TASK_MIN", task if count == 1 else 0)
    step = max(1, _integer(environ, "SLURM_ARRAY_TASK_STEP", 1))
    index, remainder = divmod(task - first, step)
    last = _integer(environ, "SLURM_ARRAY_TASK_MAX", first + (count - 1) * step)
    if remainder or not 0 <= index < count or last != first + (count - 1) * step:
        raise WorldError(
            f"Slurm array task {task} (first {first}, last {last}, step {step}, {count} tasks) is not part of "
            "a regular range, so the files cannot be shared out; submit a range such as --array=0-7"
        )
    return index, count


def _slurm_local_size(environ: Mapping[str, str]) -> int:
    """Tasks on this node, from Slurm's "4(x2),3" and the number of this node in the step; 1 when it does not
    say.
    """
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts: list[int] = []
    for count, _, repeat in re.findall(r"(\d+)(\(x(\d+)\))?", text):
        counts += [int(count)] * int(repeat or 1)
    node = _integer(environ, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else 1


def _integer(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None:
        if default is not None:
            return default
        raise WorldError(
            f"the launcher promised several processes but did not set {name}; start with mpiexec or srun"
        )
    try:
        return int(text)
    except ValueError:
        raise WorldError(f"environment variable {name} should be a whole number, it is {text!r}") from None


def _checked(world: World) -> World:
    if world.size < 1 or not 0 <= world.rank < world.size:
        raise WorldError(
            f"the environment says rank {world.rank} of {world.size} ({world.launcher}), which cannot be"
        )
    return world
