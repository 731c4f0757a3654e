"""Posterior samples by MCMC on the batched likelihood: emcee's ensemble sampler, or chains of our own.

The chain moves in the coordinates of the fit, with a prior that is flat there: flat in position, angles and time, and
flat in ln(1 + E) where the transformation takes the logarithm of the energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.nuts import nuts
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.reconstruct.walks import Target, hamiltonian, metropolis
from hpcreco.experiments.icecube.sources.contract import Observation

#: all but emcee's
METHODS = {"metropolis": metropolis, "hmc": hamiltonian, "nuts": nuts}


@dataclass(frozen=True)
class Sampling:
    """Method; how many walkers (0: four per free parameter for emcee, else 10), steps kept, steps thrown away first;
    spread of the start where there is no covariance.

    emcee: an ensemble of walkers without gradients. metropolis: random walks. hmc, nuts: Hamiltonian trajectories,
    which need gradients and hardly correlate, of fixed length or until they turn back.
    """

    method: str = "emcee"
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
    settings = settings or Sampling()
    target = Target(likelihood, data, best, space, _root(covariance, space.n_free, settings))
    return (_ensemble if settings.method == "emcee" else _chains)(target, settings, seed)


def _chains(target: Target, settings: Sampling, seed: int) -> Chain:
    """Chains of our own, each from its own start."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((settings.walkers or 10, target.size))
    walk = METHODS[settings.method](target, z, settings.steps * settings.thin, settings.burn_in, rng)
    kept = walk.z[settings.thin - 1 :: settings.thin].reshape(-1, target.size)
    loss = walk.loss[settings.thin - 1 :: settings.thin].reshape(-1)
    return Chain(target.parameters(kept), loss, walk.accepted)


def _ensemble(target: Target, settings: Sampling, seed: int) -> Chain:
    """emcee's walkers, which propose by each other's places."""
    import emcee

    k = target.size
    walkers = settings.walkers or 4 * k + 4 * k % 2
    start = np.random.default_rng(seed).standard_normal((walkers, k))
    sampler = emcee.EnsembleSampler(walkers, k, lambda z: -target.loss(z), vectorize=True)
    sampler.random_state = np.random.RandomState(seed).get_state()  # what emcee draws from
    state = sampler.run_mcmc(start, settings.burn_in) if settings.burn_in else start
    sampler.reset()
    sampler.run_mcmc(state, settings.steps * settings.thin, thin_by=1)
    kept = sampler.get_chain(thin=settings.thin, flat=True)
    loss = -sampler.get_log_prob(thin=settings.thin, flat=True)
    return Chain(target.parameters(kept), loss, float(np.mean(sampler.acceptance_fraction)))


def _root(covariance: Tensor | None, k: int, settings: Sampling) -> np.ndarray:
    """(k, k) root of the covariance, or of one that is as wide as the start's spread."""
    if covariance is None or not bool(torch.isfinite(covariance).all()):
        return settings.spread * np.eye(k)
    values, vectors = np.linalg.eigh(covariance.cpu().double().numpy())
    return vectors * np.sqrt(np.clip(values, 1e-12, None))
