"""Random-walk Metropolis and Hamiltonian Monte Carlo: several chains of one event, evaluated together.

Chains move in z, where coordinates are centre + root z and the target is about a unit normal distribution. Steps are
tuned while the chain burns in, and fixed afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.objective import Likelihood, Objective
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation

_PATH = 1.6  # length of a Hamiltonian trajectory: about a quarter of a turn in a unit normal distribution
_MOST_LEAPS = 64


@dataclass(frozen=True)
class Target:
    """The loss of the single event of `data` around `best` (p,) as a function of z (c, k); root: (k, k)."""

    likelihood: Likelihood
    data: Observation
    best: Tensor
    space: Space
    root: np.ndarray

    @property
    def size(self) -> int:
        """k."""
        return len(self.root)

    def coordinates(self, z: np.ndarray) -> np.ndarray:
        """(c, k) coordinates of the fit."""
        centre = self.space.coordinates(self.best[None])[0].cpu().double().numpy()
        return centre + z @ self.root.T

    def parameters(self, z: np.ndarray) -> np.ndarray:
        """(c, p) physical parameters."""
        y = torch.as_tensor(self.coordinates(z)).to(self.best)
        return self.space.parameters(y, self.best.repeat(len(y), 1)).cpu().double().numpy()

    def loss(self, z: np.ndarray) -> np.ndarray:
        """(c,) loss."""
        objective, y = self._asked(z)
        return objective.loss(y).cpu().double().numpy()

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(c,) loss and its gradient (c, k) in z."""
        objective, y = self._asked(z)
        loss, gradient = (part.cpu().double().numpy() for part in objective(y))
        return loss, gradient @ self.root

    def _asked(self, z: np.ndarray) -> tuple[Objective, Tensor]:
        y = torch.as_tensor(self.coordinates(z)).to(self.best)
        event = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Objective(self.likelihood, take(self.data, event), self.space, self.best.repeat(len(y), 1)), y


@dataclass(frozen=True)
class Walk:
    """z (steps, c, k) and loss (steps, c) after burn-in; the share of proposals that were accepted."""

    z: np.ndarray
    loss: np.ndarray
    accepted: float


class Tuner:
    """Dual averaging of ln step until a wanted share of proposals is accepted.

    Hoffman and Gelman, The No-U-Turn Sampler, JMLR 15 (2014), section 3.2, with its constants.
    """

    def __init__(self, step: float, wanted: float) -> None:
        self.step, self._wanted = step, wanted
        self._anchor = math.log(10 * step)
        self._mean, self._smooth, self._count = 0.0, math.log(step), 0

    def learn(self, accepted: float) -> None:
        """Take in the share of one more proposal that was acceptable."""
        self._count += 1
        t, weight = self._count, 1 / (self._count + 10)
        self._mean += weight * (self._wanted - accepted - self._mean)
        log = self._anchor - math.sqrt(t) / 0.05 * self._mean
        self._smooth += t**-0.75 * (log - self._smooth)
        self.step = math.exp(log)

    def fix(self) -> None:
        """Stay at the average of what was tried."""
        if self._count:
            self.step = math.exp(self._smooth)


def metropolis(target: Target, z: np.ndarray, steps: int, burn_in: int, rng: np.random.Generator) -> Walk:
    """Normal proposals of one width in z for all chains (c, k); three in ten are to be accepted."""
    loss = target.loss(z)
    tuner = Tuner(2.38 / math.sqrt(target.size), 0.3)  # best for normal distributions (Roberts et al. 1997)
    kept, losses, accepted = [], [], []
    for number in range(burn_in + steps):
        if number == burn_in:
            tuner.fix()
        proposal = z + tuner.step * rng.standard_normal(z.shape)
        new = target.loss(proposal)
        chance = np.exp(np.minimum(loss - new, 0.0))
        moved = rng.random(len(z)) < chance
        z, loss = np.where(moved[:, None], proposal, z), np.where(moved, new, loss)
        if number < burn_in:
            tuner.learn(float(chance.mean()))
        else:
            kept.append(z), losses.append(loss), accepted.append(moved.mean())
    return Walk(np.array(kept), np.array(losses), float(np.mean(accepted)))


def hamiltonian(target: Target, z: np.ndarray, steps: int, burn_in: int, rng: np.random.Generator) -> Walk:
    """Trajectories of leapfrog steps, as many as make a quarter of a turn; eight in ten are to be accepted."""
    loss, gradient = target(z)
    tuner = Tuner(0.5, 0.8)
    kept, losses, accepted = [], [], []
    for number in range(burn_in + steps):
        if number == burn_in:
            tuner.fix()
        momentum = rng.standard_normal(z.shape)
        step = tuner.step * rng.uniform(0.8, 1.2)  # no resonance with a period of the target
        end, p, new, new_gradient = leap(target, z, momentum, gradient, step, _leaps(step))
        gained = loss - new + 0.5 * (momentum**2 - p**2).sum(1)
        chance = np.exp(np.minimum(np.nan_to_num(gained, nan=-np.inf), 0.0))
        moved = rng.random(len(z)) < chance
        z, gradient = (np.where(moved[:, None], a, b) for a, b in ((end, z), (new_gradient, gradient)))
        loss = np.where(moved, new, loss)
        if number < burn_in:
            tuner.learn(float(chance.mean()))
        else:
            kept.append(z), losses.append(loss), accepted.append(moved.mean())
    return Walk(np.array(kept), np.array(losses), float(np.mean(accepted)))


def _leaps(step: float) -> int:
    return max(1, min(_MOST_LEAPS, math.ceil(_PATH / step)))


def leap(
    target: Target, z: np.ndarray, momentum: np.ndarray, gradient: np.ndarray, step: float, count: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`count` leapfrog steps of all chains: z, momentum, loss, gradient where they end."""
    loss = np.zeros(len(z))
    for _ in range(count):
        momentum = momentum - 0.5 * step * gradient
        z = z + step * momentum
        loss, gradient = target(z)
        momentum = momentum - 0.5 * step * gradient
    return z, momentum, loss, gradient
