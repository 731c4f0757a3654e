"""Metrics as sums: right values, and the same ones however the rows are split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from hpcreco.config import ConfigError
from hpcreco.nn import metrics


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(500, 1, generator=generator), (torch.rand(500, 1, generator=generator) < 0.1).float()


def test_bin_accuracy(sample):
    scores, labels = sample
    total, weight = metrics.bin_accuracy(scores, labels)
    assert metrics.ratio(total, weight) == float(((scores > 0.5).float() == labels).double().mean())
    assert metrics.bin_accuracy(scores, labels * 5000)[0] == total  # labels may be charges


def test_accuracy_takes_the_largest_score():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    total, weight = metrics.accuracy(scores, torch.tensor([1, 0, 0]))
    assert (float(total), float(weight)) == (2, 3)


def test_balanced_accuracy_is_sklearns(sample):
    scores, labels = sample
    counts = metrics.binary_counts(scores, labels)
    expected = balanced_accuracy_score(labels.numpy().ravel(), (scores > 0.5).numpy().ravel())
    assert metrics.balanced_accuracy(counts) == pytest.approx(expected)
    assert (
        metrics.balanced_accuracy(
            metrics.binary_counts(torch.zeros(9, 1), labels[:9] * 0 + torch.eye(9)[:, :1])
        )
        == 0.5
    )
    assert math.isnan(metrics.balanced_accuracy(metrics.binary_counts(scores, torch.zeros_like(labels))))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 7, 50, 64])
def test_histograms_count_the_thresholds_exceeded(n, dtype):
    """By search among the thresholds, at each of them and just beside, where rounding could mislead."""
    thresholds = torch.arange(n, dtype=torch.float64) / n
    edges = thresholds.to(dtype)
    beside = [torch.nextafter(edges, torch.full_like(edges, to)) for to in (-9.0, 9.0)]
    strange = torch.tensor([-3.0, 1.0, 1.5, math.inf, -math.inf, math.nan, 1e-40], dtype=dtype)
    scores = torch.cat(
        [edges, *beside, strange, torch.rand(500, generator=torch.Generator().manual_seed(n)).to(dtype)]
    )
    positive = torch.arange(len(scores)) % 3 == 0
    bins = np.searchsorted(thresholds.numpy(), scores.double().numpy())
    true, ghost = metrics.score_histograms(scores, positive, n)
    assert true.tolist() == np.bincount(bins[positive.numpy()], minlength=n + 1).tolist()
    assert ghost.tolist() == np.bincount(bins[~positive.numpy()], minlength=n + 1).tolist()


def test_sums_add_over_any_split(sample):
    scores, labels = sample
    cuts = [slice(0, 3), slice(3, 3), slice(3, 500)]
    parts = [metrics.binary_counts(scores[c], labels[c]) for c in cuts]
    whole = metrics.binary_counts(scores, labels)
    assert {k: int(sum(p[k] for p in parts)) for k in whole} == {k: int(v) for k, v in whole.items()}
    flat, positive = scores.reshape(-1), labels.reshape(-1) > 0
    histograms = [torch.stack(metrics.score_histograms(flat[c], positive[c], 50)) for c in cuts]
    assert torch.equal(sum(histograms), torch.stack(metrics.score_histograms(flat, positive, 50)))
    assert [h.shape for h in histograms] == [(2, 51)] * 3
    assert histograms[2].sum() == len(flat[3:])


def test_nothing_counted_is_not_a_number():
    assert math.isnan(metrics.ratio(torch.zeros(()), torch.zeros(())))


def test_names():
    assert metrics.build({"acc": "BinAccuracy"}) == {"acc": metrics.bin_accuracy}
    with pytest.raises(ConfigError, match=r"metrics\.acc.*did you mean 'BinAccuracy'"):
        metrics.build({"acc": "BinAcuracy"})
