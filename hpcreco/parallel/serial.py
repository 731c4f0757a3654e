"""One process: every collective operation is the identity."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Done:
    """The `Pending` of a sum that needed no doing."""

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        """Nothing is under way."""


class Serial:
    """The `Parallel` of one process."""

    name = "serial"
    rank, size, local_rank = 0, 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor.clone()

    def begin_sum_(self, tensor: Tensor, name: str) -> Done:
        return Done()

    def adds(self, dtype: torch.dtype) -> bool:
        return True

    def broadcast_(self, tensors: Sequence[Tensor], root: int = 0) -> None:
        """Nothing to send."""

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        return value

    def gather_object(self, value: Any, root: int = 0) -> list[Any] | None:
        return [value]

    def barrier(self) -> None:
        """Nobody to wait for."""

    def abort(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def close(self) -> None:
        """Nothing to release."""
