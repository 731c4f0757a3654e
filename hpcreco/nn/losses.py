"""Losses by name, as terms that add up: each a sum over items and what to divide it by.

Everything is computed in float32 at least, on the device of the prediction, also under bf16 autocast.
Predictions are probabilities or values (N, ...), targets have the same shape. Where a network can give
logits, the cross-entropies are computed from them: the formula is the same, but a wrong prediction of almost
0 or 1 keeps its gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from hpcreco.config import ConfigError
from hpcreco.nn import lookup
from hpcreco.nn.cell_losses import Cells, DownsampleMSELoss
from hpcreco.nn.prediction import Prediction
from hpcreco.train.task import Term


class Loss(Protocol):
    """Prediction and target of one batch -> terms by name; without rows, zero sums and weights.

    One whose attribute `needs_cells` is true is given the `Cells` of the batch as a third argument.
    """

    def __call__(self, prediction: Prediction, target: Tensor) -> dict[str, Term]: ...


def cross_entropy(prediction: Prediction, target: Tensor) -> Tensor:
    """Element-wise -(t log p + (1 - t) log(1 - p)); from logits if there are any, else with logs cut at -100
    as torch does.
    """
    if prediction.logits is not None:
        return functional.binary_cross_entropy_with_logits(prediction.logits, target, reduction="none")
    value = prediction.value
    if bool(((value < 0) | (value > 1)).any()):
        raise ConfigError(
            "loss: a binary cross-entropy needs probabilities; the model gives values outside [0, 1] "
            "(MSELoss suits those)"
        )
    return functional.binary_cross_entropy(value, target, reduction="none")


def _count(values: Tensor) -> Tensor:
    return torch.full((), values.numel(), dtype=torch.float32, device=values.device)


class BCELoss:
    """Mean binary cross-entropy."""

    def __call__(self, prediction: Prediction, target: Tensor) -> dict[str, Term]:
        """One term, divided by the number of elements."""
        values = cross_entropy(prediction, target)
        return {"bce": Term(values.sum(), _count(values))}


class BCEL1Loss:
    """BCE + L1_lambda * mean |p|: few voxels are true, so predictions are drawn towards 0."""

    def __init__(self, L1_lambda: float) -> None:
        self._coefficient = float(L1_lambda)

    def __call__(self, prediction: Prediction, target: Tensor) -> dict[str, Term]:
        """Two terms, both divided by the number of elements."""
        values = cross_entropy(prediction, target)
        count = _count(values)
        return {
            "bce": Term(values.sum(), count),
            "l1": Term(prediction.value.abs().sum(), count, self._coefficient),
        }


class LabelWeightedBCELoss:
    """Mean of w * BCE, w = positive_weight where the target is 1, else 1."""

    def __init__(self, positive_weight: float) -> None:
        self._positive = float(positive_weight)

    def __call__(self, prediction: Prediction, target: Tensor) -> dict[str, Term]:
        """One term, divided by the number of elements (not by the sum of w)."""
        weights = torch.where(target > 0.5, self._positive, 1.0)
        values = weights * cross_entropy(prediction, target)
        return {"bce": Term(values.sum(), _count(values))}


class ChargeWeightedBCELoss:
    """Mean of w * BCE(p, charge > 0), w = the charge where it is > 0, else negative_weight."""

    def __init__(self, negative_weight: float = 1.0) -> None:
        self._negative = float(negative_weight)

    def __call__(self, prediction: Prediction, target: Tensor) -> dict[str, Term]:
        """One term, divided by the number of elements (not by the sum of w)."""
        positive = target > 0
        weights = torch.where(positive, target, torch.full_like(target, self._negative))
        values = weights * cross_entropy(prediction, positive.to(target.dtype))
        return {"bce": Term(values.sum(), _count(values))}


class TorchLoss:
    """A torch loss of (input, target) with the mean taken over all batches together.

    Class weights and ignore_index of CrossEntropyLoss and NLLLoss count in the denominator, as in torch.
    """

    def __init__(self, loss: nn.Module, name: str) -> None:
        self._loss, self._name = loss, name

    def __call__(self, prediction: Prediction, target: Tensor) -> dict[str, Term]:
        """One term, under the loss's name."""
        loss = self._loss.to(prediction.value.device)
        logits = isinstance(loss, nn.BCEWithLogitsLoss) and prediction.logits is not None
        by_class = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and not target.is_floating_point()
        given = prediction.logits if logits else prediction.value
        values = loss(given, target)
        return {self._name: Term(values.sum(), self._class_weights(target) if by_class else _count(values))}

    def _class_weights(self, target: Tensor) -> Tensor:
        kept = target.ne(int(self._loss.ignore_index))  # type: ignore[arg-type]
        weight: Any = self._loss.weight
        return (kept.float() if weight is None else weight[target.clamp(min=0)] * kept).sum()


class InFloat32:
    """A loss out of reach of autocast: half-precision input is widened first."""

    def __init__(self, loss: Any) -> None:
        self._loss = loss
        self.needs_cells = bool(getattr(loss, "needs_cells", False))

    def __call__(self, prediction: Prediction, target: Tensor, cells: Cells | None = None) -> dict[str, Term]:
        """The loss's terms, computed in float32, or in float64 if the prediction is."""
        with torch.autocast(prediction.value.device.type, enabled=False):
            value, logits = _wide(prediction.value), prediction.logits
            prediction = Prediction(value, None if logits is None else _wide(logits))
            if target.is_floating_point():
                target = target.to(value.dtype)
            if target.shape != value.shape and target.is_floating_point():
                raise ConfigError(
                    f"loss: prediction {tuple(value.shape)} and target {tuple(target.shape)} differ in shape"
                )
            if self.needs_cells:
                return self._loss(prediction, target, cells)  # type: ignore[no-any-return]
            return self._loss(prediction, target)  # type: ignore[no-any-return]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


LOSSES: dict[str, Any] = {
    "BCELoss": BCELoss,
    "BCEL1Loss": BCEL1Loss,
    "LabelWeightedBCELoss": LabelWeightedBCELoss,
    "ChargeWeightedBCELoss": ChargeWeightedBCELoss,
    "DownsampleMSELoss": DownsampleMSELoss,
}

#: names that cannot be used, and what to do instead
GONE = {
    "WeightedBCELoss": "this loss was replaced; ChargeWeightedBCELoss takes the same negative_weight (and charges "
    "as labels, so no data.threshold), LabelWeightedBCELoss takes positive_weight",
}


def build(name: str, arguments: Mapping[str, Any], where: str = "loss") -> InFloat32:
    """The loss `name`: one of ours, any torch.nn loss of (input, target), or ``module:Class``.

    A class of the user's own is either a torch loss with a `reduction` argument, or takes a Prediction and a
    target and returns Terms by name. Raises ConfigError.
    """
    of_torch = lookup.public_classes(nn, _Loss)
    found = lookup.find(name, {**of_torch, **LOSSES}, f"{where}.name", GONE)
    arguments = dict(arguments)
    if name in LOSSES and name != "BCELoss":
        return InFloat32(lookup.make(found, arguments, where))
    if not (inspect.isclass(found) and issubclass(found, nn.Module)) and name != "BCELoss":
        return InFloat32(lookup.make(found, arguments, where))
    reduction = arguments.pop("reduction", "mean")
    if reduction != "mean":
        raise ConfigError(
            f"{where}.reduction: {reduction!r} would make the step depend on how its events are split over ranks; "
            "use mean"
        )
    if name == "BCELoss" and not arguments:
        return InFloat32(BCELoss())
    torch_class = nn.BCELoss if name == "BCELoss" else found
    inputs = list(inspect.signature(torch_class.forward).parameters)[1:]
    if len(inputs) != 2:
        raise ConfigError(
            f"{where}.name: {name} compares {', '.join(inputs)}; a loss of prediction and target is needed here"
        )
    for key in ("weight", "pos_weight"):
        if isinstance(arguments.get(key), (list, tuple, float, int)):
            arguments[key] = torch.as_tensor(arguments[key], dtype=torch.float32)
    return InFloat32(TorchLoss(lookup.make(torch_class, {**arguments, "reduction": "none"}, where), name))
