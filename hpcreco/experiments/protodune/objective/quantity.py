"""What a network can say of a voxel: the seam between the task and deghosting or charge regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from hpcreco.nn.prediction import Prediction


@dataclass(frozen=True)
class Quantity:
    """All functions, like a `Task`.

    output:  the yinf column, and the prefix of its sums: "probability", "charge"
    predict: (network, coords (N, 4), features (N, F)) -> Prediction (N, 1), before labels are unsqueezed
    count:   (values (N, 1), labels (N, 1), offsets of the events) -> summable tensors, names without prefix
    columns: (these sums) -> numbers of the summary row, keys exactly `names`
    names:   the columns
    monitor: (column, "min" or "max") of the best epoch, before train_ or valid_
    """

    output: str
    predict: Callable[[nn.Module, Tensor, Tensor], Prediction]
    count: Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]
    columns: Callable[[Mapping[str, Tensor]], dict[str, float]]
    names: tuple[str, ...]
    monitor: tuple[str, str]
