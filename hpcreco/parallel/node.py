"""What a rank takes of its node: a device and a number of threads."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from hpcreco.world import World


class NoGpuError(RuntimeError):
    """A GPU was asked for where there is none."""

    exit_code = 1


def choose_device(world: World, wanted: str | None = None) -> torch.device:
    """The GPU numbered local_rank modulo the visible GPUs, or the CPU where there is none.

    wanted: "cpu", "cuda" (a GPU or an error) or a certain one such as "cuda:1"; None chooses.
    Warns when the node's GPUs outnumber its tasks, because the others would idle. Raises NoGpuError.
    """
    if wanted not in (None, "cuda"):
        return torch.device(wanted)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == 0:
        if wanted == "cuda":
            raise NoGpuError(
                f"{socket.gethostname()} shows no GPU to this process: see `hpcreco doctor`, or use cpu"
            )
        return torch.device("cpu")
    if gpus > world.local_size and world.local_rank == 0:
        warnings.warn(
            f"{socket.gethostname()} shows {gpus} GPUs to {world.local_size} task(s): "
            f"{gpus - world.local_size} will idle; start one task per GPU",
            stacklevel=2,
        )
    device = torch.device("cuda", world.local_rank % gpus)
    torch.cuda.set_device(device)
    return device


def gpu(device: torch.device) -> str | None:
    """Which GPU `device` is, among all of all nodes; None for the CPU."""
    if device.type != "cuda":
        return None
    return f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"


def own_gpus(everyone: Sequence[str | None]) -> bool:
    """Whether every rank has a GPU that no other rank uses, as NCCL demands. everyone: `gpu()` of all ranks."""
    return None not in everyone and len(set(everyone)) == len(everyone)


def cores() -> tuple[str, tuple[int, ...]]:
    """Name of this host and the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return socket.gethostname(), tuple(sorted(os.sched_getaffinity(0)))
    return socket.gethostname(), tuple(range(os.cpu_count() or 1))


def use_threads(everyone: Sequence[tuple[str, tuple[int, ...]]], rank: int) -> int:
    """Give torch and numba this rank's part of its cores and return their number.

    everyone: `cores()` of all ranks. Cores that a launcher bound to one rank are its own; shared ones are
    divided by the ranks that share them. OMP_NUM_THREADS, if set, decides.
    """
    host, mine = everyone[rank]
    sharing = sum(h == host and not set(mine).isdisjoint(other) for h, other in everyone)
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdigit() and int(given) > 0 else max(1, len(mine) // sharing)
    torch.set_num_threads(threads)
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    else:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))
    return threads


def give_back(tensors: Sequence[Tensor], hosted: Sequence[Tensor]) -> None:
    """Copy the results of a collective operation on `hosted` into `tensors`, where they are not the same memory."""
    for tensor, result in zip(tensors, hosted, strict=True):
        if result.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(result)
