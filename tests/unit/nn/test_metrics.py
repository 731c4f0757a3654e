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


def test_histograms_count_the_thresholds_exceeded():
    thresholds = np.arange(50) / 50
    scores = torch.tensor([0.0, 0.02, 0.021, 0.5, 1.0, 0.98, 0.981], dtype=torch.float64)
    expected = np.bincount([(thresholds < float(s)).sum() for s in scores], minlength=51)
    assert metrics.score_histogram(scores, thresholds).tolist() == expected.tolist()


def test_sums_add_over_any_split(sample):
    scores, labels = sample
    thresholds = np.arange(50) / 50
    cuts = [slice(0, 3), slice(3, 3), slice(3, 500)]
    parts = [metrics.binary_counts(scores[c], labels[c]) for c in cuts]
    whole = metrics.binary_counts(scores, labels)
    assert {k: int(sum(p[k] for p in parts)) for k in whole} == {k: int(v) for k, v in whole.items()}
    histograms = [metrics.score_histogram(scores[c], thresholds) for c in cuts]
    assert torch.equal(sum(histograms), metrics.score_histogram(scores, thresholds))
    assert [len(h) for h in histograms] == [51] * 3


def test_nothing_counted_is_not_a_number():
    assert math.isnan(metrics.ratio(torch.zeros(()), torch.zeros(())))


def test_names():
    assert metrics.build({"acc": "BinAccuracy"}) == {"acc": metrics.bin_accuracy}
    with pytest.raises(ConfigError, match=r"metrics\.acc.*did you mean 'BinAccuracy'"):
        metrics.build({"acc": "BinAcuracy"})
