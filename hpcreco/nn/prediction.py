"""What a network says, as losses take it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """What a network says: `value` (N, ...), and for probabilities their `logits` when it has them."""

    value: Tensor
    logits: Tensor | None = None
