"""The loss over coarser cells: its definition by loops, its gradient, and that events and ranks may be split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.nn import losses
from hpcreco.nn.cell_losses import Cells
from hpcreco.nn.prediction import Prediction


def sample(seed=0, events=3, rows=120, size=12):
    """Candidates with charge in some, and truth that partly lies where no candidate is."""
    rng = np.random.default_rng(seed)
    coords, labels, truth_coords, truth = [], [], [], []
    for event in range(events):
        cells = np.stack(np.unravel_index(rng.permutation(size**3)[: rows + 10], (size,) * 3), axis=1)
        charge = np.where(rng.random(rows + 10) < 0.15, rng.exponential(3, rows + 10), 0)
        charge[-10:] += 1.0  # true, and no candidate
        slot = np.full((rows + 10, 1), event)
        coords.append(np.hstack([slot, cells])[:rows])
        labels.append(charge[:rows])
        truth_coords.append(np.hstack([slot, cells])[charge > 0])
        truth.append(charge[charge > 0])
    tensors = [torch.from_numpy(np.concatenate(part)) for part in (coords, labels, truth_coords, truth)]
    coords, labels, truth_coords, truth = tensors
    values = torch.from_numpy(rng.normal(1, 2, (len(labels), 1))).requires_grad_()
    return values, labels[:, None], Cells(coords.int(), truth_coords.int(), truth[:, None])


def by_loops(values, labels, cells, size, weight):
    """The definition, voxel by voxel and cell by cell."""

    def cell(row):
        return (row[0], *(c // s for c, s in zip(row[1:], size, strict=True)))

    true, predicted = {}, {}
    for row, q in zip(cells.truth_coords.tolist(), cells.truth[:, 0].tolist(), strict=True):
        true[cell(row)] = true.get(cell(row), 0) + q
    of_voxels = []
    for row, p, y in zip(cells.coords.tolist(), values[:, 0].tolist(), labels[:, 0].tolist(), strict=True):
        predicted[cell(row)] = predicted.get(cell(row), 0) + p
        if y > 0 or true.get(cell(row), 0) == 0:
            of_voxels.append((p - y) ** 2)
    of_cells = [(true[c] - predicted[c]) ** 2 for c in true if c in predicted]
    return np.mean(of_voxels) + weight * np.mean(of_cells)


def total(terms):
    return sum(t.coefficient * t.sum / t.weight for t in terms.values())


@pytest.mark.parametrize("size", [(5, 5, 5), (1, 1, 1), (3, 4, 2), (50, 50, 50)])
def test_it_is_its_definition(size):
    values, labels, cells = sample()
    loss = losses.build("DownsampleMSELoss", {"downsample": list(size), "weight": 0.7})
    assert loss.needs_cells
    found = total(loss(Prediction(values), labels, cells)).item()
    assert found == pytest.approx(by_loops(values.detach(), labels, cells, size, 0.7), rel=1e-6)


def test_the_gradient_passes_the_scatter():
    values, labels, cells = sample(events=1, rows=30, size=6)
    loss = losses.build("DownsampleMSELoss", {"downsample": [3, 3, 3]})
    assert torch.autograd.gradcheck(
        lambda v: total(
            {k: t._replace(weight=t.weight.double()) for k, t in loss(Prediction(v), labels, cells).items()}
        ),
        values,
    )


def test_sums_over_events_are_those_of_the_batch():
    """Ranks share events out: numerators and denominators must add."""
    values, labels, cells = sample()
    loss = losses.build("DownsampleMSELoss", {"downsample": [5, 5, 5]})
    whole = loss(Prediction(values), labels, cells)
    parts = []
    for event in range(3):
        own, of_truth = cells.coords[:, 0] == event, cells.truth_coords[:, 0] == event
        part = Cells(cells.coords[own], cells.truth_coords[of_truth], cells.truth[of_truth])
        parts.append(loss(Prediction(values[own]), labels[own], part))
    assert set(whole) == {"mse", "cells"}
    for name, term in whole.items():
        assert float(sum(p[name].sum.detach() for p in parts)) == pytest.approx(
            float(term.sum.detach()), rel=1e-9
        )
        assert float(sum(p[name].weight for p in parts)) == float(term.weight)


def test_nothing_gives_zero_terms_with_a_gradient():
    values = torch.zeros(0, 1, requires_grad=True)
    nowhere = torch.zeros(0, 4, dtype=torch.int32)
    terms = losses.build("DownsampleMSELoss", {"downsample": [5, 5, 5]})(
        Prediction(values), torch.zeros(0, 1), Cells(nowhere, nowhere, torch.zeros(0, 1))
    )
    assert all(float(t.sum.detach()) == float(t.weight) == 0 for t in terms.values())
    sum(t.sum for t in terms.values()).backward()
