"""Posterior samples by MCMC: emcee's ensemble sampler on the batched likelihood.

The chain moves in the coordinates of the fit, with a prior that is flat there: flat in position, angles and time, and
flat in ln(1 + E) where the transformation takes the logarithm of the energy.
"""

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
class Sampling:
    """How many walkers (0: four per free parameter), steps kept, steps thrown away first; spread of the start."""

    walkers: int = 0
    steps: int = 100
    burn_in: int = 50
    thin: int = 1
    spread: float = 0.01


@dataclass(frozen=True)
class Chain:
    """Samples of one event: parameters (N, p) physical, loss (N,); the share of steps that were accepted.

    quantiles: (3, p) of 16, 50 and 84 %.
    """

    parameters: np.ndarray
    loss: np.ndarray
    accepted: float

    @property
    def quantiles(self) -> np.ndarray:
        return np.quantile(self.parameters, (0.16, 0.5, 0.84), axis=0)


def sample(
    likelihood: Likelihood,
    data: Observation,
    best: Tensor,
    space: Space,
    *,
    settings: Sampling | None = None,
    covariance: Tensor | None = None,
    seed: int = 0,
) -> Chain:
    """Sample the single event of `data` around `best` (p,); walkers start from `covariance` (k, k) in coordinates."""
    import emcee

    settings = settings or Sampling()
    k = space.n_free
    walkers = settings.walkers or 4 * k + 4 * k % 2
    one = Objective(likelihood, data, space, best[None])
    centre = space.coordinates(best[None])[0]
    rng = np.random.default_rng(seed)
    start = centre.cpu().double().numpy() + _spread(covariance, k, settings, rng, walkers)

    def log_probability(y: np.ndarray) -> np.ndarray:
        event = torch.zeros(len(y), dtype=torch.int64, device=best.device)
        many = Objective(likelihood, take(one.data, event), space, best.repeat(len(y), 1))
        return -many.loss(torch.as_tensor(y).to(best)).cpu().double().numpy()

    sampler = emcee.EnsembleSampler(walkers, k, log_probability, vectorize=True)
    sampler.random_state = np.random.RandomState(seed).get_state()  # what emcee draws from
    state = sampler.run_mcmc(start, settings.burn_in) if settings.burn_in else start
    sampler.reset()
    sampler.run_mcmc(state, settings.steps * settings.thin, thin_by=1)
    flat = sampler.get_chain(thin=settings.thin, flat=True)
    loss = -sampler.get_log_prob(thin=settings.thin, flat=True)
    parameters = space.parameters(torch.as_tensor(flat).to(best), best.repeat(len(flat), 1))
    return Chain(parameters.cpu().double().numpy(), loss, float(np.mean(sampler.acceptance_fraction)))


def _spread(
    covariance: Tensor | None, k: int, settings: Sampling, rng: np.random.Generator, walkers: int
) -> np.ndarray:
    if covariance is None or not bool(torch.isfinite(covariance).all()):
        return settings.spread * rng.standard_normal((walkers, k))
    values, vectors = np.linalg.eigh(covariance.cpu().double().numpy())
    return rng.standard_normal((walkers, k)) @ (vectors * np.sqrt(np.clip(values, 1e-12, None))).T
