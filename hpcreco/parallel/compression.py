"""How a bucket of gradients travels: as it is, or in half as many bytes.

bf16: as wide in range as float32, with 8 bits of precision; nothing has to be known before. fp16: 11 bits, but numbers
only between 6e-8 and 65504, so each bucket is scaled first by a power of two, the same on all ranks, that puts the sum
over ranks of their largest entries at most at 2^15: no sum can overflow, and what is 2^-29 of the largest or more
keeps its 11 bits. That sum is one number a bucket, added while backward fills the next.

The error of a summed entry, with u = 2^-11 (fp16) or 2^-8 (bf16), P ranks and their gradients g_r:

    |error| <= (P + 1) u sum_r |g_r| + P 2^-38 sum_r max |g_r|

the first from rounding once per rank and once per addition, the second (fp16 alone) from what lies below fp16's
smallest normal number. All ranks receive the same bits, so they stay equal. Gradients that are not finite arrive so.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from hpcreco.config import ConfigError
from hpcreco.parallel import Parallel, Pending
from hpcreco.parallel.serial import Done

Compression = Literal["none", "fp16", "bf16"]

#: what numbers travel as, where they are compressed
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

#: largest exponent of a scaled bucket: half of float16's range, which leaves room for rounding up
_TOP = 15


class Message(Protocol):
    """One bucket's vector under way; used again in every step, `announce`, `send` and `wait` in this order."""

    announces: bool
    number: int
    pending: Pending

    def announce(self) -> None:
        """Begin to sum what all ranks have to know before the vector can go."""

    def send(self) -> None:
        """Begin to sum the vector."""

    def wait(self) -> None:
        """Return when the vector holds the sum."""


def message(kind: Compression, number: int, flat: Tensor, values: int, parallel: Parallel) -> Message:
    """The message for bucket `number`: `flat` holds `values` gradients, then flags that are sums of 0 and 1.

    Raises ConfigError, on all ranks alike, when they cannot add numbers of that kind or it would narrow float64.
    """
    if kind == "none":
        return Whole(number, flat, parallel)
    reason = None
    if flat.dtype == torch.float64:
        reason = "the model is in float64, of which 16 bits would leave little; use none, or float32"
    elif not parallel.adds(DTYPES[kind]):
        reason = f"{parallel.name} cannot add such numbers; use fp16, or --backend ddp"
    if reason is not None:
        error = ConfigError(f"parallel.compression: {kind}: {reason}")
        vars(error).update(everywhere=True, quiet=parallel.rank != 0)
        raise error
    return Scaled(number, flat, values, parallel) if kind == "fp16" else Narrow(number, flat, parallel)


class Whole:
    """The vector itself."""

    announces = False

    def __init__(self, number: int, flat: Tensor, parallel: Parallel) -> None:
        self.number = number
        self.pending: Pending = Done()
        self._flat, self._parallel = flat, parallel

    def announce(self) -> None:
        """Nothing to say before."""

    def send(self) -> None:
        self.pending = self._parallel.begin_sum_(self._flat, str(self.number))

    def wait(self) -> None:
        self.pending.wait()


class Narrow:
    """The vector in bfloat16."""

    announces = False

    def __init__(self, number: int, flat: Tensor, parallel: Parallel) -> None:
        self.number = number
        self.pending: Pending = Done()
        self._flat, self._parallel = flat, parallel
        self._sent = torch.empty_like(flat, dtype=torch.bfloat16)

    def announce(self) -> None:
        """Nothing to say before."""

    def send(self) -> None:
        self._sent.copy_(self._flat)
        self.pending = self._parallel.begin_sum_(self._sent, str(self.number))

    def wait(self) -> None:
        self.pending.wait()
        self._flat.copy_(self._sent)


class Scaled:
    """The vector in float16, scaled by what all ranks' largest entries sum to."""

    announces = True

    def __init__(self, number: int, flat: Tensor, values: int, parallel: Parallel) -> None:
        self.number = number
        self.pending: Pending = Done()
        self._flat, self._values, self._parallel = flat, flat[:values], parallel
        self._sent = torch.empty_like(flat, dtype=torch.float16)
        self._peak = torch.zeros(1, dtype=torch.float64, device=flat.device)
        self._known: Pending = Done()
        self._exponent = 0

    def announce(self) -> None:
        if len(self._values):
            self._peak.copy_(torch.linalg.vector_norm(self._values, float("inf")))
        self._known = self._parallel.begin_sum_(self._peak, f"largest of {self.number}")

    def send(self) -> None:
        self._known.wait()
        self._exponent = _exponent(float(self._peak))
        self._values.mul_(2.0**self._exponent)
        self._sent.copy_(self._flat)
        self.pending = self._parallel.begin_sum_(self._sent, str(self.number))

    def wait(self) -> None:
        self.pending.wait()
        self._flat.copy_(self._sent)
        self._values.mul_(2.0**-self._exponent)


def _exponent(peak: float) -> int:
    """The power of two that puts `peak` at most at 2^15; 0 for what is zero or not finite."""
    if not 0 < peak < float("inf"):
        return 0
    above = math.frexp(peak)[1]  # peak < 2^above
    return max(-126, min(126, _TOP - above))
