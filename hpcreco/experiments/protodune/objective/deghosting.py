"""Deghosting: the probability of every candidate voxel to hold charge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS, curve_from_histograms
from hpcreco.experiments.protodune.objective.quantity import Quantity
from hpcreco.nn import metrics
from hpcreco.nn.prediction import Prediction

COLUMNS = ("balanced_accuracy", "auc_pe", "break_even")


def predict(network: nn.Module, coords: Tensor, features: Tensor) -> Prediction:
    """Probabilities, with their logits when the network gives them."""
    logits_of: Callable[..., Tensor] | None = getattr(network, "logits", None)
    if logits_of is None:
        return Prediction(network(coords, features))
    logits = logits_of(coords, features)
    logits = logits if logits.dtype.itemsize > 2 else logits.float()  # bf16 has too few steps near 1
    return Prediction(logits.sigmoid(), logits)


def count(scores: Tensor, labels: Tensor, offsets: Tensor) -> dict[str, Tensor]:
    """Counts for the balanced accuracy, and score histograms of true and ghost voxels."""
    true, ghost = metrics.score_histograms(scores.reshape(-1), labels.reshape(-1) > 0, len(THRESHOLDS))
    return {
        **metrics.binary_counts(scores, labels),
        "true_scores": true,
        "ghost_scores": ghost,
    }


def columns(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Balanced accuracy, area under the purity-efficiency curve, and where the two are equal."""
    curve = curve_from_histograms(
        sums["true_scores"].cpu().numpy(), sums["ghost_scores"].cpu().numpy(), THRESHOLDS
    )
    return {
        "balanced_accuracy": metrics.balanced_accuracy(sums),
        "auc_pe": curve.auc_pe,
        "break_even": curve.break_even,
    }


DEGHOSTING = Quantity("probability", predict, count, columns, COLUMNS, ("auc_pe", "max"))
