"""The loss along one parameter at a time, the others held: what a minimum looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.objective import Likelihood, Objective
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation


@dataclass(frozen=True)
class LossScan:
    """One event's loss: parameter (N,) number of the parameter, value (N,) physical, loss (N,)."""

    parameter: np.ndarray
    value: np.ndarray
    loss: np.ndarray


def scan(
    likelihood: Likelihood,
    data: Observation,
    best: Tensor,
    space: Space,
    *,
    points: int = 1000,
    reach: float | Tensor = 1.0,
    batch: int = 256,
) -> LossScan:
    """`points` losses along every free parameter of the single event of `data`.

    reach: coordinates to either side of `best` (p,), one number or (k,).
    """
    centre = space.coordinates(best[None])[0]
    reaches = torch.as_tensor(reach).to(centre).expand(space.n_free)
    parameters, values, losses = [], [], []
    for column, number in enumerate(space.free):
        grid = centre.repeat(points, 1)
        grid[:, column] += reaches[column] * torch.linspace(-1, 1, points).to(centre)
        for part in grid.split(batch):
            event = torch.zeros(len(part), dtype=torch.int64, device=best.device)
            objective = Objective(likelihood, take(data, event), space, best.repeat(len(part), 1))
            losses.append(objective.loss(part))
            values.append(_unreflected(objective, part, column, number))
        parameters.append(np.full(points, number))
    return LossScan(
        np.concatenate(parameters), torch.cat(values).cpu().numpy(), torch.cat(losses).cpu().numpy()
    )


def _unreflected(objective: Objective, coordinates: Tensor, column: int, number: int) -> Tensor:
    """Values along the axis of the scan; a zenith below 0 stays below 0, or the curve would fold back."""
    space = objective.space
    if space.trafo is None:
        return coordinates[:, column]
    whole = space.trafo.transform(objective.anchor)
    whole[:, number] = coordinates[:, column]
    return space.trafo.inverse(whole)[:, number]
