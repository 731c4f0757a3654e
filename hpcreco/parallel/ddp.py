"""Ranks joined by torch.distributed, over gloo or NCCL."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpcreco import collective
from hpcreco.parallel import ParallelError, node, rendezvous
from hpcreco.world import World, WorldError

# Long enough for any step: the watchdog, which knows `parallel.timeout`, ends a job that hangs.
_NEVER = timedelta(days=7)


class Ddp:
    """The `Parallel` of a torch.distributed process group. torch's own DDP wrapper is not used: its buckets
    change after the first step, so resumed runs would differ.

    transport: gloo or nccl; None takes nccl when every rank of the node has a GPU of its own.
    """

    name = "ddp"

    def __init__(
        self, world: World, device: torch.device, transport: str | None = None, output_dir: Path | None = None
    ) -> None:
        self.device = device
        if transport is None:
            own_gpu = device.type == "cuda" and torch.cuda.device_count() >= world.local_size
            transport = "nccl" if own_gpu else "gloo"
        if transport == "nccl" and device.type != "cuda":
            raise WorldError("transport nccl needs a GPU and this rank has none: choose gloo")
        self.on_device = device.type == "cpu" or transport == "nccl"
        if world.size == world.local_size:
            # one node: no need for its name to resolve, which it often does not in containers
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self._mpi = _mpi(world)
        both = "cpu:gloo,cuda:nccl" if transport == "nccl" else "gloo"
        with self._mpi.progressing() if self._mpi else nullcontext():
            store = rendezvous.meet(world, self._mpi, output_dir)
            dist.init_process_group(both, store=store, rank=world.rank, world_size=world.size, timeout=_NEVER)
            # A group matches operations by their order. Sums that begin during backward get one of their own: a rank
            # without rows begins them later, between other sums of the same backward.
            self._begun = dist.new_group(timeout=_NEVER, backend=both)
        self.rank, self.size, self.local_rank = world.rank, world.size, world.local_rank

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over ranks."""
        hosted = [self._hosted(tensor) for tensor in tensors]
        with _together():
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in hosted]:
                work.wait()
        node.give_back(tensors, hosted)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over ranks, as a new tensor."""
        total = tensor.detach().clone()
        self.sum_([total])
        return total

    def begin_sum_(self, tensor: Tensor, name: str) -> _Begun:
        """Begin to replace `tensor` by its sum over ranks."""
        hosted = self._hosted(tensor)
        with _together():
            return _Begun(dist.all_reduce(hosted, group=self._begun, async_op=True), tensor, hosted)

    def adds(self, dtype: torch.dtype) -> bool:
        """gloo and NCCL add numbers of 16 bits of either kind."""
        return True

    def broadcast_(self, tensors: Sequence[Tensor], root: int = 0) -> None:
        """Replace each tensor by the root's."""
        hosted = [self._hosted(tensor) for tensor in tensors]
        with _together():
            for work in [dist.broadcast(tensor, root, async_op=True) for tensor in hosted]:
                work.wait()
        node.give_back(tensors, hosted)

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """The root's `value`, on every rank."""
        box = [value]
        with _together():
            dist.broadcast_object_list(box, root, device=torch.device("cpu"))
        return value if self.rank == root else box[0]

    def gather_object(self, value: Any, root: int = 0) -> list[Any] | None:
        """The values of all ranks in rank order at the root, None elsewhere."""
        box: list[Any] | None = [None] * self.size if self.rank == root else None
        with _together():
            dist.gather_object(value, box, root)
        return box

    def barrier(self) -> None:
        """Return once every rank has called it."""
        self.sum_([torch.zeros(1)])

    def abort(self, code: int) -> None:
        """End all ranks; without MPI the launcher ends the others when this one is gone."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self._mpi is not None:
            self._mpi.abort(code)
        os._exit(code)

    def close(self) -> None:
        """Leave the process group; with MPI nobody goes on before all have left, for rank 0 hosts the others' store."""
        dist.destroy_process_group()
        if self._mpi is not None:
            self._mpi.barrier()

    def _hosted(self, tensor: Tensor) -> Tensor:
        """`tensor` as the transport can take it: contiguous, and on the CPU for gloo."""
        tensor = tensor.detach()
        return (tensor if self.on_device else tensor.cpu()).contiguous()


class _Begun:
    """The `Pending` of `tensor`, which is summed as `hosted`."""

    def __init__(self, work: Any, tensor: Tensor, hosted: Tensor) -> None:
        self._work, self._tensor, self._hosted = work, tensor, hosted

    def done(self) -> bool:
        return bool(self._work.is_completed())

    def wait(self) -> None:
        with _together():
            self._work.wait()
        node.give_back([self._tensor], [self._hosted])


@contextmanager
def _together() -> Iterator[None]:
    """A broken connection, said in our words."""
    try:
        yield
    except RuntimeError as error:
        raise ParallelError(f"lost another rank, see its own message ({error})") from error


def _mpi(world: World) -> collective.Collective | None:
    """MPI's ranks, where the launcher starts MPI programs and mpi4py is there to ask."""
    if world.size == 1 or world.launcher == "torchrun" or importlib.util.find_spec("mpi4py") is None:
        return None
    return collective.connect(world)
