"""Priors on the parameters of a hypothesis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube.settings import LossTerm


def prior(term: LossTerm, parameters: Tensor, parameter_names: Sequence[str]) -> Tensor:
    """(n,) of parameters (n, p): `_outside` of uniform ranges, half the squared pull of normal ones."""
    total = torch.zeros_like(parameters[:, 0])
    for name, (low, high) in term.uniform.items():
        value = parameters[:, _column(parameter_names, name)]
        total = total + torch.where((value < low) | (value > high), _outside(value, low, high), 0.0)
    for name, (mean, width) in term.normal.items():
        total = total + 0.5 * ((parameters[:, _column(parameter_names, name)] - mean) / width) ** 2
    return term.weight * total


def _outside(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """0 within [low, high], outside e^{10(1 + excess/width)} − e^{10}: steep, but smooth enough to be minimised.

    Goes on straight beyond e^{60}, which float32 can still hold.
    """
    width = high - low
    excess = torch.relu(low - value) + torch.relu(value - high)
    exponent = 10.0 * (1.0 + excess / width)
    straight = torch.relu(exponent - 60.0)
    return torch.exp(exponent.clamp_max(60.0)) * (1.0 + straight) - math.exp(10.0)


def _column(parameter_names: Sequence[str], name: str) -> int:
    if name not in parameter_names:
        raise ConfigError(
            f"loss_module_settings: a prior on {name!r}; the hypothesis has {', '.join(parameter_names)}"
        )
    return list(parameter_names).index(name)
