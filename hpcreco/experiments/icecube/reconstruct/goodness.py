"""Would the best fit have made such an event? Events drawn from the fitted hypothesis, and where the data rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.fit import fit
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation

#: parameters (n, p), data -> as many events, drawn, with the windows, gaps and usable DOMs of `data`
Draw = Callable[[Tensor, Observation], Observation]


@dataclass(frozen=True)
class Goodness:
    """Of n events: one_sided (n,) share of drawn events with a higher loss; two_sided (n,).

    terms: (n, T) the same for each part of the loss, where these are given. bias, width: (n, p) mean and standard
    deviation of refitted minus drawn parameters, where events were fitted again.
    """

    one_sided: Tensor
    two_sided: Tensor
    terms: Tensor | None = None
    bias: Tensor | None = None
    width: Tensor | None = None


def goodness(
    likelihood: Likelihood,
    draw: Draw,
    data: Observation,
    best: Tensor,
    loss: Tensor,
    space: Space,
    *,
    samples: int = 50,
    covariance: Tensor | None = None,
    refit: Minimiser | None = None,
    terms: Likelihood | None = None,
    generator: torch.Generator | None = None,
) -> Goodness:
    """Goodness of fits with the best parameters (n, p) and their `loss` (n,).

    covariance: (n, k, k) in coordinates, to draw hypotheses from; without it the best fit is the hypothesis. With
    `refit` every drawn event is fitted, as the data were.
    """
    above = torch.zeros_like(loss)
    own = None if terms is None else terms(best, data).detach()
    parts = None if own is None else torch.zeros_like(own)
    shifts = []
    for _ in range(samples):
        hypothesis = best if covariance is None else _drawn(best, covariance, space, generator)
        simulated = draw(hypothesis, data)
        if refit is None:
            with torch.no_grad():
                found, value = hypothesis, likelihood(hypothesis, simulated)
        else:
            again = fit(likelihood, simulated, hypothesis, space, refit)
            found, value = again.parameters, again.loss
            shifts.append(again.parameters - hypothesis)
        above += (value > loss).to(above)
        if terms is not None and own is not None and parts is not None:
            with torch.no_grad():
                parts += (terms(found, simulated) > own).to(parts)
    half = samples / 2
    moved = torch.stack(shifts) if shifts else None
    return Goodness(
        one_sided=above / samples,
        two_sided=(half - (half - above).abs()) / half,
        terms=None if parts is None else parts / samples,
        bias=None if moved is None else moved.mean(0),
        width=None if moved is None else moved.std(0),
    )


def _drawn(best: Tensor, covariance: Tensor, space: Space, generator: torch.Generator | None) -> Tensor:
    """(n, p) hypotheses from a normal distribution in coordinates; the best fit where there is no covariance."""
    known = torch.isfinite(covariance).all(2).all(1)
    values, vectors = torch.linalg.eigh(torch.where(known[:, None, None], covariance, 0.0))
    root = vectors * values.clamp_min(0).sqrt()[:, None, :]
    normal = torch.randn(root.shape[:2], generator=generator, dtype=torch.float64).to(best)
    y = space.coordinates(best) + (root @ normal[:, :, None])[:, :, 0]
    return torch.where(known[:, None], space.parameters(y, best), best)
