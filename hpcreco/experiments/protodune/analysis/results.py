"""The figures of merit of a sample as rows of numbers: the network's, and what it has to beat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hpcreco.experiments.protodune.analysis.baselines import constants
from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS, Curve
from hpcreco.experiments.protodune.analysis.sample import Sample

WITHOUT_TRUTH = 0.5
"""The working threshold when there is no truth to choose one by."""


@dataclass(frozen=True)
class Result:
    """One way to tell true voxels from ghosts, and how good it is; NaN where a figure has no meaning."""

    sample: str
    method: str
    auc_pe: float
    break_even: float
    threshold: float
    purity: float
    efficiency: float
    accuracy: float = float("nan")
    balanced_accuracy: float = float("nan")


def working_index(sample: Sample, threshold: float | None) -> int:
    """Index of the working threshold: the tabulated one nearest to `threshold`, else the best of the mean curve."""
    if threshold is not None:
        return int(np.abs(THRESHOLDS - threshold).argmin())
    return sample.mean().best if sample.has_truth else int(np.abs(THRESHOLDS - WITHOUT_TRUTH).argmin())


def network(sample: Sample, index: int) -> list[Result]:
    """The network's results at threshold number `index`: mean of the events, all voxels pooled, weighted by charge."""
    right = _accuracies(sample, index)
    return [
        _of_curve(sample.name, "network", sample.mean(), index, *right),
        _of_curve(sample.name, "network, voxels pooled", sample.pooled(), index, *right),
        # ghosts carry next to no charge: where charge-weighted purity equals efficiency says nothing
        replace(
            _of_curve(sample.name, "network, weighted by charge", sample.mean(weighted=True), index),
            break_even=np.nan,
        ),
    ]


def baselines(sample: Sample) -> list[Result]:
    """Constant answers, then cuts on features from the best to the worst."""
    counts = sample.counts()
    share = counts.true / (counts.true + (counts.missed or 0)) if sample.comp_true and counts.true else 1.0
    rows = []
    for answer in constants(counts.true, counts.ghost):
        # a constant answer has one point on the curve: its area is the rectangle below it
        efficiency = answer.efficiency * share
        area = answer.purity * efficiency
        point = (np.nan, np.nan, answer.purity, efficiency)
        rows.append(Result(sample.name, answer.name, area, *point, answer.accuracy, answer.balanced_accuracy))
    cuts = []
    for name, scan in sample.scans.items():
        auc, break_even, cut, purity, efficiency = scan.result()
        cuts.append(Result(sample.name, f"cut on {name}", auc, break_even, cut, purity, efficiency))
    return rows + sorted(cuts, key=lambda row: -np.nan_to_num(row.auc_pe))


def best_cut(sample: Sample) -> str | None:
    """Name of the score (as in `Sample.scans`) whose cut has the largest auc_pe."""
    aucs = {name: scan.result()[0] for name, scan in sample.scans.items()}
    return max(aucs, key=aucs.__getitem__) if aucs else None


def _of_curve(name: str, method: str, curve: Curve, index: int, *accuracies: float) -> Result:
    purity, efficiency = float(curve.purity[index]), float(curve.efficiency[index])
    threshold = float(curve.thresholds[index])
    return Result(name, method, curve.auc_pe, curve.break_even, threshold, purity, efficiency, *accuracies)


def _accuracies(sample: Sample, index: int) -> tuple[float, float]:
    """Accuracy and balanced accuracy of all candidates pooled."""
    true, ghost = np.sum(sample.true, axis=0), np.sum(sample.ghost, axis=0)
    right_true, right_ghost = true[index + 1 :].sum(), ghost[: index + 1].sum()
    n_true, n_ghost = true.sum(), ghost.sum()
    if n_true == 0 or n_ghost == 0:
        return float("nan"), float("nan")
    accuracy = (right_true + right_ghost) / (n_true + n_ghost)
    return float(accuracy), float((right_true / n_true + right_ghost / n_ghost) / 2)
