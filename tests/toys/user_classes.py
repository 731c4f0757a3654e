"""What a user brings along: a data set, a model, a loss and a metric, by `module:Class` in a config."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hpcreco.train.task import Term


class Lines:
    """Voxels on a line are true when their charge is large; charges are the same in every epoch, coordinates shift."""

    def __init__(self, events: int, length: int = 12) -> None:
        self.events, self.length = events, length

    def size(self, part: str) -> int:
        return self.events if part == "train" else self.events // 2

    def event(self, part: str, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        at = np.arange(self.length) + int(rng.integers(5))
        charge = np.random.default_rng([number, part == "train"]).normal(size=(self.length, 1))
        return {"coords": np.stack([at, at, at], 1), "features": charge, "labels": charge > 0}


class Pixels:
    """Images that are all of one grey, dark or light."""

    table = "images"

    def __init__(self, n_classes: int = 2) -> None:
        self.n_classes = n_classes

    def size(self, part: str) -> int:
        return 8

    def event(self, part: str, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        label = number % self.n_classes
        return {"image": np.full((1, 4, 4), float(label)), "label": label}


class RowNet(nn.Module):
    """Every voxel for itself."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, coords: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layers(features))


class Squared:
    """Mean of factor * (prediction - target)^2."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, prediction, target):
        error = self.factor * (prediction.value - target) ** 2
        return {"squared": Term(error.sum(), torch.tensor(float(error.numel())))}


def share_above_half(prediction, target):
    """A metric: how many rows are above one half."""
    return (prediction > 0.5).sum().double(), torch.tensor(float(len(prediction)), dtype=torch.float64)
