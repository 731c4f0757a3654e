"""Charge regression: the electrons in every candidate voxel.

Of an event, r = (sum of the predicted charge) / (sum of the true charge) - 1, both over its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hpcreco.experiments.protodune.objective.quantity import Quantity
from hpcreco.nn.metrics import ratio
from hpcreco.nn.prediction import Prediction

COLUMNS = ("charge_bias", "event_bias", "event_rms", "event_resolution", "voxel_rms", "voxel_explained")

#: r of events is histogrammed in these bins, with one more on either side
BINS, LOW, HIGH = 400, -1.0, 1.0


def predict(network: nn.Module, coords: Tensor, features: Tensor) -> Prediction:
    """Charges in the unit of the squeezed labels, in float32 also under autocast."""
    values = network(coords, features)
    return Prediction(values if values.dtype.itemsize > 2 else values.float())


def count(charge: Tensor, labels: Tensor, offsets: Tensor) -> dict[str, Tensor]:
    """Sums over voxels and over events, in float64 and electrons."""
    charge, true = charge.detach().reshape(-1).double(), labels.reshape(-1).double()
    slots = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff()).to(charge.device)
    empty = charge.new_zeros(len(offsets) - 1)
    predicted, truth = empty.index_add(0, slots, charge), empty.index_add(0, slots, true)
    r = predicted[truth > 0] / truth[truth > 0] - 1
    r_finite = r.nan_to_num(nan=HIGH)  # asinh undone may overflow
    bins = ((r_finite - LOW) * (BINS / (HIGH - LOW))).floor().clamp(-1, BINS).long() + 1
    return {
        "predicted": charge.sum(),
        "true": true.sum(),
        "true_squared": (true**2).sum(),
        "error_squared": ((charge - true) ** 2).sum(),
        "voxels": charge.new_tensor(float(len(charge))),
        "events": charge.new_tensor(float(len(r))),
        "r": r.sum(),
        "r_squared": (r**2).sum(),
        "r_histogram": torch.bincount(bins, minlength=BINS + 2).double(),
    }


def columns(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The columns of the summary.

    charge_bias: sum of all predicted over all true charge, minus 1. event_bias, event_rms, event_resolution: mean,
    standard deviation and 68 % half-width of r. voxel_rms: root of the mean squared error, in electrons.
    voxel_explained: share of the charges' variance over voxels that the prediction accounts for.
    """
    voxels, events = float(sums["voxels"]), float(sums["events"])
    mean = ratio(sums["r"], sums["events"])
    variance = float(sums["true_squared"]) - float(sums["true"]) ** 2 / voxels if voxels else 0.0
    return {
        "charge_bias": ratio(sums["predicted"], sums["true"]) - 1,
        "event_bias": mean,
        "event_rms": max(float(sums["r_squared"]) / events - mean**2, 0.0) ** 0.5 if events else float("nan"),
        "event_resolution": half_width(sums["r_histogram"].cpu().numpy()),
        "voxel_rms": ratio(sums["error_squared"], sums["voxels"]) ** 0.5,
        "voxel_explained": 1 - float(sums["error_squared"]) / variance if variance > 0 else float("nan"),
    }


def half_width(histogram: np.ndarray) -> float:
    """Half the distance of the quantiles 0.159 and 0.841, linear within bins; outside of [LOW, HIGH] at its ends."""
    total = histogram.sum()
    if total == 0:
        return float("nan")
    edges = np.concatenate([[LOW], np.linspace(LOW, HIGH, BINS + 1), [HIGH]])
    share = np.concatenate([[0.0], np.cumsum(histogram)]) / total
    low, high = (_quantile(p, share, edges) for p in (0.158655, 0.841345))
    return 0.5 * (high - low)


def _quantile(p: float, share: np.ndarray, edges: np.ndarray) -> float:
    """Where the cumulated `share` (n + 1,) at bin `edges` (n + 1,) reaches p."""
    after = int(np.searchsorted(share, p))
    before = share[after - 1]
    return float(
        edges[after - 1] + (p - before) / (share[after] - before) * (edges[after] - edges[after - 1])
    )


CHARGE = Quantity("charge", predict, count, columns, COLUMNS, ("loss", "min"))
