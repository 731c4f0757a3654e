"""Ranks joined by Horovod over MPI. The only module that imports horovod."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcreco import collective
from hpcreco.collective import shared_memory
from hpcreco.parallel import ParallelError, node
from hpcreco.world import World, WorldError


def load() -> Any:
    """`horovod.torch`, ready to be initialised. Raises ImportError when it is missing or its library does not load."""
    # Horovod fuses whatever tensors happen to be ready together; the order of additions would then depend on
    # timing. We send flat buckets ourselves, so nothing is lost without it.
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    import horovod.torch as hvd

    if not hasattr(hvd, "allreduce_"):  # Horovod reports a library that does not load by printing only
        raise ImportError("its library for torch does not load, it was built for another torch or MPI")
    return hvd


class Horovod:
    """The `Parallel` of Horovod's ranks. Raises WorldError when they are not those the launcher promised."""

    name = "horovod"

    def __init__(self, world: World, device: torch.device) -> None:
        self._hvd = load()
        # MPI first by mpi4py: it asks for thread support that Horovod's own start would not, and it can abort
        self._mpi = collective.connect(world)
        if world.size == 1 and (lacking := shared_memory.settle(1)):  # Horovod begins MPI by itself then
            raise WorldError(
                f"Horovod's MPI cannot begin: {lacking}; one rank needs none with --backend serial"
            )
        self._hvd.init()
        self.rank, self.size, self.local_rank = self._hvd.rank(), self._hvd.size(), world.local_rank
        if self.size != world.size:
            raise WorldError(
                f"{world.launcher} promised {world.size} ranks, Horovod found {self.size}: "
                "it was built with another MPI than this launcher's; see `hpcreco doctor`"
            )
        self.device = device
        self.on_device = False
        self.on_device = self._nccl(self.broadcast_object(self.gather_object(node.gpu(device))))

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over ranks."""
        hosted = [self._hosted(tensor) for tensor in tensors]
        # equal names let Horovod remember a tensor's description from step to step
        handles = [
            self._hvd.allreduce_async_(t, op=self._hvd.Sum, name=f"sum.{n}.{t.dtype}.{t.numel()}")
            for n, t in enumerate(hosted)
        ]
        for handle in handles:
            self._wait(handle)
        node.give_back(tensors, hosted)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over ranks, as a new tensor."""
        total = tensor.detach().clone()
        self.sum_([total])
        return total

    def begin_sum_(self, tensor: Tensor, name: str) -> _Begun:
        """Begin to replace `tensor` by its sum over ranks, which Horovod finds by its name."""
        hosted = self._hosted(tensor)
        handle = self._hvd.allreduce_async_(hosted, op=self._hvd.Sum, name=f"begun.{name}.{hosted.dtype}")
        return _Begun(partial(self._hvd.poll, handle), partial(self._wait, handle), tensor, hosted)

    def adds(self, dtype: torch.dtype) -> bool:
        """Horovod has no sum of bfloat16."""
        return dtype != torch.bfloat16

    def broadcast_(self, tensors: Sequence[Tensor], root: int = 0) -> None:
        """Replace each tensor by the root's."""
        hosted = [self._hosted(tensor) for tensor in tensors]
        handles = [
            self._hvd.broadcast_async_(t, root, name=f"send.{root}.{n}.{t.dtype}.{t.numel()}")
            for n, t in enumerate(hosted)
        ]
        for handle in handles:
            self._wait(handle)
        node.give_back(tensors, hosted)

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """The root's `value`, on every rank."""
        data = _packed(value) if self.rank == root else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(data)])
        self.broadcast_([size], root)
        if self.rank != root:
            data = torch.empty(int(size), dtype=torch.uint8)
        self.broadcast_([data], root)
        return value if self.rank == root else _unpacked(data)

    def gather_object(self, value: Any, root: int = 0) -> list[Any] | None:
        """The values of all ranks in rank order at the root, None elsewhere."""
        data = _packed(value)
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(data)
        self.sum_([sizes])
        everyone = self._wait(self._hvd.allgather_async(data, name="gather"))
        if self.rank != root:
            return None
        return [_unpacked(part) for part in everyone.split(sizes.tolist())]

    def barrier(self) -> None:
        """Return once every rank has called it."""
        self.sum_([torch.zeros(1)])

    def abort(self, code: int) -> None:
        """End all ranks."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.size > 1:
            self._mpi.abort(code)
        os._exit(code)

    def close(self) -> None:
        """Leave Horovod."""
        self._hvd.shutdown()

    def _nccl(self, gpus: Sequence[str | None]) -> bool:
        """Whether tensors can be added where they are on `gpus`, those of all ranks; rank 0 warns where they cannot."""
        if set(gpus) == {None}:
            return False
        if not self._hvd.nccl_built():
            reason = "Horovod was built for the CPU only"
            remedy = "build it with NCCL (HPCRECO_CUDA=torch tools/setup horovod)"
        elif not node.own_gpus(gpus):
            reason, remedy = "NCCL needs one GPU per rank, and some ranks share one", "start one rank per GPU"
        else:
            return True
        if self.rank == 0:
            warnings.warn(
                f"{reason}: gradients are copied to the CPU and back in every step; {remedy}, or use --backend ddp",
                stacklevel=4,
            )
        return False

    def _wait(self, handle: int) -> Any:
        try:
            return self._hvd.synchronize(handle)
        except self._hvd.HorovodInternalError as error:
            raise ParallelError(f"lost another rank, see its own message ({error})") from error

    def _hosted(self, tensor: Tensor) -> Tensor:
        """`tensor` as Horovod can take it: contiguous, and on the CPU unless NCCL adds it on its GPU."""
        tensor = tensor.detach()
        return (tensor if self.on_device else tensor.cpu()).contiguous()


class _Begun:
    """The `Pending` of `tensor`, which is summed as `hosted`."""

    def __init__(
        self, done: Callable[[], bool], wait: Callable[[], Any], tensor: Tensor, hosted: Tensor
    ) -> None:
        self.done, self._wait, self._tensor, self._hosted = done, wait, tensor, hosted

    def wait(self) -> None:
        self._wait()
        node.give_back([self._tensor], [self._hosted])


def _packed(value: Any) -> Tensor:
    return torch.from_numpy(np.frombuffer(pickle.dumps(value), np.uint8).copy())


def _unpacked(data: Tensor) -> Any:
    return pickle.loads(data.numpy().tobytes())  # noqa: S301  (bytes of this run's own ranks)
