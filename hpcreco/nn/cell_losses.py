"""Losses that compare sums over coarser cells with all of the truth, also where there is no voxel to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hpcreco.config import ConfigError
from hpcreco.nn.prediction import Prediction
from hpcreco.train.task import Term


class Cells(NamedTuple):
    """Where the predicted rows lie, and the whole truth of their events.

    coords (N, 4) and truth_coords (M, 4): int batch, x, y, z; truth (M, 1): in the unit of the target.
    """

    coords: Tensor
    truth_coords: Tensor
    truth: Tensor


class DownsampleMSELoss:
    """Mean (p - y)^2 over voxels, plus `weight` times mean (sum y - sum p)^2 over coarser cells of `downsample` voxels.

    The cells: those that hold true charge and at least one predicted voxel; sum y is over all true voxels in the
    cell, predicted or not. The voxels: those with y > 0, and those in cells without true charge. A ghost beside
    true charge is so judged by the cell's sum alone: charge may lie a voxel off.
    """

    needs_cells = True

    def __init__(self, downsample: Sequence[int], weight: float = 1.0) -> None:
        if len(downsample) != 3 or any(int(d) != d or d < 1 for d in downsample):
            raise ConfigError(f"loss.downsample: expected three numbers of voxels >= 1, found {downsample!r}")
        self._downsample, self._weight = tuple(int(d) for d in downsample), float(weight)

    def __call__(self, prediction: Prediction, target: Tensor, cells: Cells) -> dict[str, Term]:
        """Two terms, divided by the number of their voxels and of their cells."""
        value, target = prediction.value.reshape(-1), target.reshape(-1)
        truth = cells.truth.reshape(-1).to(value.dtype)
        cell, of_truth, count = _same_cells(cells.coords, cells.truth_coords, self._downsample)
        true = value.new_zeros(count).index_add(0, of_truth, truth)
        charged = value.new_zeros(count).index_add(0, of_truth, (truth > 0).to(value.dtype)) > 0
        predicted = value.new_zeros(count).index_add(0, cell, value)  # its gradient reaches every voxel
        occupied = torch.zeros(count, dtype=torch.bool, device=value.device)
        occupied[cell] = True
        judged = (target > 0) | ~charged[cell]
        seen = charged & occupied
        return {
            "mse": Term(((value - target) ** 2)[judged].sum(), judged.sum().float()),
            "cells": Term(((true - predicted) ** 2)[seen].sum(), seen.sum().float(), self._weight),
        }


def _same_cells(a: Tensor, b: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """Numbers of the cells that rows of `a` and of `b` fall into, and how many cells there are."""
    rows = torch.cat([a, b]).long()
    if len(rows) == 0:
        return rows.new_zeros(0), rows.new_zeros(0), 0
    cells = torch.cat(
        [rows[:, :1], torch.div(rows[:, 1:], rows.new_tensor(size), rounding_mode="floor")], dim=1
    )
    cells = cells - cells.amin(0)
    extent = cells.amax(0) + 1
    key = ((cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]) * extent[3] + cells[:, 3]
    found, inverse = torch.unique(key, return_inverse=True)
    return inverse[: len(a)], inverse[len(a) :], len(found)
