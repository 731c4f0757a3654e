"""The fit of many events: from seeds to the best parameters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct import batched, by_scipy, by_spherical
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser, Minimum
from hpcreco.experiments.icecube.reconstruct.by_scipy import ScipyMinimiser
from hpcreco.experiments.icecube.reconstruct.by_spherical import SphericalMinimiser
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood, Objective
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation

AnyMinimiser = Minimiser | ScipyMinimiser | SphericalMinimiser


@dataclass(frozen=True)
class Fit:
    """Best parameters of n events.

    parameters, seed: (n, p), physical units. loss, seed_loss: (n,). converged: (n,) bool. evaluations: (n,) int64.
    seconds: (n,) share of the time. chosen: (n,) int64, which of several seeds led here.
    inverse_hessian: (n, k, k) as the minimiser learnt it, in the space of the fit, where it keeps one.
    """

    parameters: Tensor
    loss: Tensor
    seed: Tensor
    seed_loss: Tensor
    converged: Tensor
    evaluations: Tensor
    seconds: Tensor
    chosen: Tensor
    inverse_hessian: Tensor | None = None


def fit(
    likelihood: Likelihood,
    data: Observation,
    seeds: Tensor | Sequence[Tensor],
    space: Space,
    minimiser: AnyMinimiser | None = None,
) -> Fit:
    """Fit every event of `data` from `seeds` (n, p); with several of them, from each, keeping the lowest loss."""
    several = [seeds] if isinstance(seeds, Tensor) else list(seeds)
    return best_of([_fit_from(likelihood, data, seed, space, minimiser) for seed in several])


def _fit_from(
    likelihood: Likelihood,
    data: Observation,
    seed: Tensor,
    space: Space,
    minimiser: AnyMinimiser | None,
) -> Fit:
    started = time.perf_counter()
    objective = Objective(likelihood, data, space, seed)
    start = space.coordinates(seed)
    seed_loss = objective.loss(start)
    found = _minimised(objective, start, minimiser or Minimiser())
    # the same point the long way round may round differently: the seed itself is never worse than the seed
    better = found.loss < seed_loss
    coordinates = torch.where(better[:, None], found.coordinates, start)
    parameters = torch.where(better[:, None], objective.parameters(coordinates), seed).detach()
    seconds = (time.perf_counter() - started) / max(len(seed), 1)
    return Fit(
        parameters=parameters,
        loss=torch.where(better, found.loss, seed_loss),
        seed=seed,
        seed_loss=seed_loss,
        converged=found.converged,
        evaluations=found.evaluations,
        seconds=torch.full_like(seed_loss, seconds),
        chosen=torch.zeros_like(found.evaluations),
        inverse_hessian=found.inverse_hessian,
    )


def _minimised(objective: Objective, start: Tensor, minimiser: AnyMinimiser) -> Minimum:
    if objective.space.n_free == 0:
        loss = objective.loss(start)
        return Minimum(start, loss, torch.isfinite(loss), torch.ones_like(loss, dtype=torch.int64))
    if isinstance(minimiser, ScipyMinimiser):
        return by_scipy.minimise(objective, start, minimiser)
    if isinstance(minimiser, SphericalMinimiser):
        return by_spherical.minimise(objective, start, minimiser)
    return batched.minimise(objective, start, minimiser)


def best_of(fits: Sequence[Fit]) -> Fit:
    """Of several fits of the same events, the one with the lowest loss for each event."""
    loss = torch.stack([fit.loss for fit in fits])
    chosen = torch.where(torch.isnan(loss), torch.inf, loss).argmin(0)
    if len(fits) == 1:
        return fits[0]
    event = torch.arange(len(chosen), device=chosen.device)

    def pick(name: str) -> Tensor:
        return torch.stack([getattr(fit, name) for fit in fits])[chosen, event]

    known = all(fit.inverse_hessian is not None for fit in fits)
    best = Fit(
        *(
            pick(n)
            for n in ("parameters", "loss", "seed", "seed_loss", "converged", "evaluations", "seconds")
        ),
        chosen=chosen,
        inverse_hessian=pick("inverse_hessian") if known else None,
    )
    return replace(
        best,
        evaluations=torch.stack([fit.evaluations for fit in fits]).sum(0),
        seconds=torch.stack([fit.seconds for fit in fits]).sum(0),
    )
