"""What the sum of gradients costs: their bytes, a rank's own work on them, and the network between the ranks."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from hpcreco import config
from hpcreco.parallel import Parallel
from hpcreco.parallel.compression import DTYPES
from hpcreco.parallel.gradients import GradientSum, buckets, sent_bytes
from hpcreco.parallel.serial import Serial
from hpcreco.planning.network import Network, fit
from hpcreco.planning.timing import fastest

#: sizes of all-reduces to fit latency and bandwidth to, bytes
MESSAGES = (8, 1 << 14, 1 << 18, 1 << 22)
_ROUNDS = 10


class OneOfTwo(Serial):
    """One of two ranks whose sums cost nothing and change nothing: what is left is the rank's own work."""

    size = 2


def bucket_bytes(parameters: Sequence[nn.Parameter], settings: config.Parallel) -> tuple[float, ...]:
    """Bytes of the buckets that gradients are sent in, in the order of sending; compressed ones are half as large."""
    share = 1.0 if settings.compression == "none" else 0.5
    return tuple(share * sum(map(sent_bytes, bucket)) for bucket in buckets(parameters, _size(settings)))


def packing(model: nn.Module, settings: config.Parallel, device: torch.device) -> float:
    """Seconds to lay the gradients that `model` has into buckets, to compress them and to take them out again."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    total = GradientSum(
        model.named_parameters(),
        OneOfTwo(device),
        int(_size(settings)),
        overlap=False,
        compression=settings.compression,
    )

    def pack() -> None:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        total.finish()

    seconds = fastest(pack, device)
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    return seconds


def measure_network(parallel: Parallel, settings: config.Parallel) -> Network:
    """What this launch's ranks take for all-reduces of a few sizes; the slowest rank counts.

    gloo and NCCL add in a ring, MPI under Horovod halves. Numbers are those that gradients travel as, for adding narrow
    ones takes its time.
    """
    dtype = DTYPES.get(settings.compression, torch.float32)
    seconds = []
    for size in MESSAGES:
        tensor = torch.zeros(size // dtype.itemsize, device=parallel.device, dtype=dtype)
        parallel.sum_([tensor])  # the first of a size makes connections and buffers
        taken = []
        for _ in range(_ROUNDS):
            parallel.barrier()
            began = time.perf_counter()
            parallel.sum_([tensor])
            taken.append(time.perf_counter() - began)
        seconds.append(float(np.median(taken)))
    everyone = parallel.broadcast_object(parallel.gather_object(seconds))
    return fit(
        MESSAGES,
        np.max(everyone, axis=0).tolist(),
        parallel.size,
        "ring" if parallel.name == "ddp" else "halving",
    )


def _size(settings: config.Parallel) -> float:
    return settings.bucket_mb * 2**20
