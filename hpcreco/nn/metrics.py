"""Metrics as sums: what is counted here adds over batches, files and ranks; ratios are taken at the end.

A metric maps (prediction, target) to (sum, weight), both scalars; its column is sum / weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hpcreco.nn import lookup

#: (prediction (N, C), target (N, C) or (N,)) -> (sum, weight)
Metric = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def bin_accuracy(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Share of rows on the right side: probability > 0.5 where the target is > 0, and not elsewhere."""
    right = (prediction > 0.5) == (target > 0)
    return right.sum(dtype=torch.float64), _rows(right)


def accuracy(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Share of rows whose largest of C scores (N, C) is the target class (N,) or (N, 1)."""
    right = prediction.argmax(dim=1) == target.reshape(-1)
    return right.sum(dtype=torch.float64), _rows(right)


def _rows(values: Tensor) -> Tensor:
    return torch.full((), values.numel(), dtype=torch.float64, device=values.device)


METRICS: dict[str, Metric] = {"BinAccuracy": bin_accuracy, "Accuracy": accuracy}


def build(metrics: Mapping[str, str]) -> dict[str, Metric]:
    """Column -> metric for {column: name}; a name is one of METRICS or ``module:function``. Raises
    ConfigError.
    """
    return {column: lookup.find(name, METRICS, f"metrics.{column}") for column, name in metrics.items()}


def ratio(total: Tensor, weight: Tensor) -> float:
    """total / weight, NaN when there was nothing to count."""
    return float(total) / float(weight) if float(weight) else float("nan")


def binary_counts(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """How many rows are positive (target > 0) and negative, and how many of each are on the right side of
    0.5.
    """
    called, positive = prediction.reshape(-1) > 0.5, target.reshape(-1) > 0
    right, trues = (called & positive).sum(), positive.sum()
    return {
        "positive": trues,
        "negative": positive.numel() - trues,
        "positive_right": right,
        "negative_right": positive.numel() - trues - (called.sum() - right),
    }


def balanced_accuracy(counts: Mapping[str, Tensor]) -> float:
    """Mean of the shares of positives and of negatives found, from `binary_counts`.

    0.5 for calling all the same; NaN when either kind is absent.
    """
    return 0.5 * (
        ratio(counts["positive_right"], counts["positive"])
        + ratio(counts["negative_right"], counts["negative"])
    )


def score_histograms(scores: Tensor, positive: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Positive and negative rows by their score: int64 (n + 1,) each.

    Entry i counts the scores (N,) that exceed i of the thresholds 0, 1/n, ..., (n - 1)/n, compared in float64; NaN
    exceeds all. `positive` (N,) is true or false. Runs at every training step, so it goes over the rows as few times as
    it can: thresholds at equal distances need no search, for n * score is at most one threshold too far.
    """
    exact = scores.detach().to(torch.float64).nan_to_num(nan=float("inf"))
    at = (exact * n).clamp_(0, n - 1).to(torch.int32)
    thresholds = torch.arange(n, dtype=torch.float64, device=scores.device) / n
    at += exact > thresholds.index_select(0, at)
    both = torch.bincount(at.add_(positive, alpha=n + 1), minlength=2 * (n + 1))
    return both[n + 1 :], both[: n + 1]


_OWN = "own/"  # marks the sums of metrics that a config names


def measure(metrics: Mapping[str, Metric], prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Sums and weights of `metrics` {column: metric}; they add up, and `measured` makes columns of them."""
    sums = {}
    for name, metric in metrics.items():
        sums[f"{_OWN}{name}/sum"], sums[f"{_OWN}{name}/weight"] = metric(prediction.detach(), target)
    return sums


def measures(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `sums` that `measure` has made."""
    return {name: value for name, value in sums.items() if name.startswith(_OWN)}


def measured(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Column -> sum / weight, from added-up sums of `measure`."""
    heads = [name.removesuffix("/sum") for name in measures(sums) if name.endswith("/sum")]
    return {head.removeprefix(_OWN): ratio(sums[f"{head}/sum"], sums[f"{head}/weight"]) for head in heads}
