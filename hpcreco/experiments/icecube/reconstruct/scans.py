"""The loss along one parameter at a time: what a minimum looks like.

The others are held, or fitted at every point: the profile likelihood, into which systematic uncertainties enter as
parameters with priors. Or those are integrated over as if the likelihood were normal in them (Laplace), which adds half
the ln of the determinant of the second derivatives over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.fit import fit
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
    others: str = "held",
    minimiser: Minimiser | None = None,
) -> LossScan:
    """`points` losses along every free parameter of the single event of `data`.

    reach: coordinates to either side of `best` (p,), one number or (k,). others: "held", "fitted" at every point, or
    "marginalised": fitted, and parameters with a prior in `space` integrated over.
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
            losses.append(_loss(objective, part, number, others, minimiser))
            values.append(_unreflected(objective, part, column, number))
        parameters.append(np.full(points, number))
    return LossScan(
        np.concatenate(parameters), torch.cat(values).cpu().numpy(), torch.cat(losses).cpu().numpy()
    )


def _loss(
    objective: Objective, coordinates: Tensor, number: int, others: str, minimiser: Minimiser | None
) -> Tensor:
    """(n,) at the points (n, k) of a scan along the parameter `number`."""
    space = objective.space
    if others == "held" or space.n_free == 1:
        return objective.loss(coordinates)
    held = space.without(space.names[number])
    found = fit(objective.likelihood, objective.data, objective.parameters(coordinates), held, minimiser)
    integrated = [held.free_names.index(name) for name in held.priors if name in held.free_names]
    if others == "fitted" or not integrated:
        return found.loss
    there = Objective(objective.likelihood, objective.data, held, found.parameters)
    hessian = there.hessian(held.coordinates(found.parameters))[:, integrated][:, :, integrated]
    return found.loss + 0.5 * torch.linalg.slogdet(hessian).logabsdet


def _unreflected(objective: Objective, coordinates: Tensor, column: int, number: int) -> Tensor:
    """Values along the axis of the scan; a zenith below 0 stays below 0, or the curve would fold back."""
    space = objective.space
    if space.trafo is None:
        return coordinates[:, column]
    whole = space.trafo.transform(objective.anchor)
    whole[:, number] = coordinates[:, column]
    return space.trafo.inverse(whole)[:, number]
