"""Data parallelism behind one small protocol: serial, horovod or torch.distributed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hpcreco.parallel import node
from hpcreco.world import World

#: names of the program this one succeeds -> (backend, transport)
LEGACY = {
    "none": ("serial", None),
    "mpi": ("horovod", None),
    "nccl": ("ddp", "nccl"),
    "gloo": ("ddp", "gloo"),
}
BACKENDS = ("serial", "horovod", "ddp")


class ParallelError(RuntimeError):
    """The ranks could not be brought together."""

    exit_code = 1


class Pending(Protocol):
    """A sum that is under way."""

    def done(self) -> bool:
        """Whether `wait` would return at once; not to be asked after it has."""

    def wait(self) -> None:
        """Return once the tensor holds the sum."""


class Parallel(Protocol):
    """What training needs of a group of ranks.

    Every method but `abort` is collective: all ranks call it in the same order with tensors of the same
    shapes and dtypes. Sums add in the tensor's own dtype, in an order that depends on the number of ranks
    alone, so equal inputs give equal bits.
    """

    name: str
    rank: int
    size: int
    local_rank: int
    device: torch.device

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over ranks."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over ranks, as a new tensor."""

    def begin_sum_(self, tensor: Tensor, name: str) -> Pending:
        """Begin to replace `tensor` by its sum over ranks; nobody may touch it before `Pending.wait` has returned.

        Sums begin in the same order on all ranks, counted by themselves: what other operations come between two of
        them may differ from rank to rank. `name` is the same on all ranks, and no two sums under way share one.
        """

    def adds(self, dtype: torch.dtype) -> bool:
        """Whether tensors of `dtype` can be summed where this rank's gradients are."""

    def broadcast_(self, tensors: Sequence[Tensor], root: int = 0) -> None:
        """Replace each tensor by the root's."""

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """The root's `value`, on every rank."""

    def gather_object(self, value: Any, root: int = 0) -> list[Any] | None:
        """The values of all ranks in rank order at the root, None elsewhere."""

    def barrier(self) -> None:
        """Return once every rank has called it."""

    def abort(self, code: int) -> None:
        """End this process and every other rank at once; does not return."""

    def close(self) -> None:
        """Leave the group."""


def open(  # noqa: A001
    backend: str | None,
    world: World,
    transport: str | None = None,
    output_dir: Path | None = None,
    device: str | None = None,
) -> Parallel:
    """Bring the ranks of `world` together and give each its device and threads.

    backend: one of BACKENDS, a legacy name, or None to choose: serial for one rank, otherwise horovod where
    it is installed and the launcher speaks MPI, else ddp. transport: gloo or nccl, for ddp. output_dir: where
    a rendezvous file may go when neither the environment nor MPI tells the ranks about each other.
    Raises ParallelError or WorldError when the ranks that meet are not those the launcher promised.
    """
    name, transport = resolve(backend, world, transport)
    if name == "serial":
        from hpcreco.parallel.serial import Serial

        parallel: Parallel = Serial(node.choose_device(world, device))
    elif name == "horovod":
        from hpcreco.parallel.horovod import Horovod

        parallel = Horovod(world, node.choose_device(world, device))
    else:
        from hpcreco.parallel.ddp import Ddp

        parallel = Ddp(world, node.choose_device(world, device), transport, output_dir)
    everyone = parallel.broadcast_object(parallel.gather_object(node.cores()))
    node.use_threads(everyone, parallel.rank)
    return parallel


def resolve(backend: str | None, world: World, transport: str | None = None) -> tuple[str, str | None]:
    """The backend and transport that `open` will use."""
    if backend in LEGACY:
        backend, legacy_transport = LEGACY[backend]
        transport = transport or legacy_transport
    if backend is None:
        if world.size == 1:
            backend = "serial"
        else:
            backend = "horovod" if world.launcher != "torchrun" and horovod_works() else "ddp"
    if backend not in BACKENDS:
        raise ParallelError(f"backend {backend!r}: expected one of {', '.join((*BACKENDS, *LEGACY))}")
    if backend == "serial" and world.size > 1:
        raise ParallelError(
            f"backend serial was asked for but {world.launcher} started {world.size} ranks: "
            "start one, or choose horovod or ddp"
        )
    return backend, transport


def horovod_works() -> bool:
    """Whether Horovod can be imported; says why on stderr if it is installed but broken."""
    if importlib.util.find_spec("horovod") is None:
        return False
    try:
        from hpcreco.parallel.horovod import load

        load()
    except (ImportError, OSError) as error:
        warnings.warn(f"Horovod is installed but does not load ({error}); using ddp", stacklevel=3)
        return False
    return True
