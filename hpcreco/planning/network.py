"""What adding gradients over ranks costs, in the usual model: a message of n bytes takes latency + n / bandwidth.

To the messages comes what each operation costs on any number of ranks: the backend's threads, Horovod's cycle.

Source of the formulas: R. Thakur, R. Rabenseifner and W. Gropp, Optimization of Collective Communication Operations
in MPICH, Int. J. High Perform. Comput. Appl. 19 (2005) 49, section 4.5; the ring is that of Patarasuk and Yuan (2009),
which NCCL and gloo use. The additions themselves are left out: memory is faster than the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Algorithm = Literal["halving", "ring"]


@dataclass(frozen=True)
class Network:
    """latency: seconds a message; bandwidth: bytes per second and rank; overhead: seconds an operation.

    source: where the numbers come from.
    """

    latency: float = 1e-5
    bandwidth: float = 2e9
    overhead: float = 0.0
    algorithm: Algorithm = "halving"
    source: str = "assumed"

    def allreduce(self, size: float, ranks: int) -> float:
        """Seconds to add `size` bytes over `ranks` ranks.

        halving: recursive halving and doubling, 2 ceil(log2 R) messages; ring: 2 (R - 1) messages. Both send
        2 (R - 1) / R of the bytes, the least that is possible.
        """
        if ranks == 1 or size == 0:
            return 0.0
        messages = 2 * (math.ceil(math.log2(ranks)) if self.algorithm == "halving" else ranks - 1)
        return self.overhead + messages * self.latency + 2 * (ranks - 1) / ranks * size / self.bandwidth

    def small(self, ranks: int) -> float:
        """Seconds to add a few numbers: recursive doubling, ceil(log2 R) messages."""
        return self.overhead + math.ceil(math.log2(ranks)) * self.latency if ranks > 1 else 0.0


#: where nothing was measured: the order of what MPI, gloo and NCCL reach between nodes of a cluster
ASSUMED = Network(overhead=1e-4)


def exposed(buckets: Sequence[float], backward: float, network: Network, ranks: int) -> float:
    """Seconds that adding gradients prolongs a step whose last backward pass takes `backward` seconds.

    buckets: bytes, in the order in which backward completes them; each is sent once it is complete and the one before
    has arrived. Backward is taken to complete bytes at a steady rate. backward 0: nothing overlaps.
    """
    done = np.cumsum(buckets, dtype=float)
    end = 0.0
    for size, filled in zip(buckets, done, strict=True):
        ready = backward * float(filled) / float(done[-1]) if done[-1] else 0.0
        end = max(end, ready) + network.allreduce(size, ranks)
    return max(0.0, end - backward)


def fit(sizes: Sequence[float], seconds: Sequence[float], ranks: int, algorithm: Algorithm) -> Network:
    """Overhead and bandwidth that fit measured all-reduces of `sizes` bytes best, in relative deviations.

    A few ranks, often of one node, do not tell latency from overhead: it stays as assumed, or less.
    """
    from scipy.optimize import nnls

    taken = np.asarray(seconds, float)
    volume = 2 * (ranks - 1) / ranks
    rows = np.array([[1.0, volume * size] for size in sizes]) / taken[:, None]
    (constant, per_byte), _ = nnls(rows, np.ones(len(taken)))
    messages = Network(1.0, 1.0, algorithm=algorithm).allreduce(1e-300, ranks)
    latency = min(ASSUMED.latency, float(constant) / messages)
    overhead = float(constant) - messages * latency
    bandwidth = 1 / max(float(per_byte), 1e-15)
    return Network(latency, bandwidth, overhead, algorithm, f"measured on {ranks} ranks")
