"""Stand-ins whose answers are known: observations without pulses, likelihoods that are plain functions."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcreco.experiments.icecube.sources.contract import Observation


def silent(n: int, n_doms: int = 3, dtype: torch.dtype = torch.float64) -> Observation:
    """n events without pulses; ``window[:, 0]`` is the event's number, so that a likelihood can know its events."""
    none, nobody = torch.zeros(0, dtype=dtype), torch.zeros(0, dtype=torch.int64)
    number = torch.arange(n, dtype=dtype)
    return Observation(
        charge=none,
        time=none,
        event=nobody,
        dom=nobody,
        window=torch.stack([number, number + 1000.0], 1),
        gap_start=none,
        gap_stop=none,
        gap_event=nobody,
        gap_dom=nobody,
        usable=torch.ones(n, n_doms, dtype=torch.bool),
    )


def rosenbrock(parameters: Tensor, data: Observation) -> Tensor:
    """Rosenbrock's function in any dimension, steeper for later events; minimum 0 at (1, 1, ...)."""
    steepness = 10.0 + 30.0 * data.window[:, 0]
    ahead, behind = parameters[:, 1:], parameters[:, :-1]
    return (steepness[:, None] * (ahead - behind**2) ** 2 + (1 - behind) ** 2).sum(1)


class Quadratic:
    """0.5 (x - c)' A (x - c) with A and c of each event."""

    def __init__(self, n: int, p: int, seed: int = 0, spread: float = 100.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(n, p, p, generator=generator, dtype=torch.float64))[0]
        values = torch.exp(
            torch.rand(n, p, generator=generator, dtype=torch.float64) * torch.log(torch.tensor(spread))
        )
        self.matrix = basis @ torch.diag_embed(values) @ basis.transpose(1, 2)
        self.centre = torch.randn(n, p, generator=generator, dtype=torch.float64)

    def __call__(self, parameters: Tensor, data: Observation) -> Tensor:
        number = data.window[:, 0].long()
        away = parameters - self.centre[number].to(parameters)
        return 0.5 * torch.einsum("ni,nij,nj->n", away, self.matrix[number].to(parameters), away)
