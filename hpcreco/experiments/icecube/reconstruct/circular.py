"""One number for the uncertainty of a direction, from the likelihood itself.

The direction is moved away from the best fit, everything else is fitted again, and the rise of the loss says how much
of the probability lies closer: twice the rise follows a chi-square distribution with as many degrees of freedom as
parameters were held (Wilks), two for a direction. A circular Gaussian has 1 - exp(-psi^2 / 2 sigma^2) within psi, and
sigma is what brings the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.angles import away_from
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.fit import fit
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space, SpaceError, directions
from hpcreco.experiments.icecube.sources.contract import Observation


@dataclass(frozen=True)
class Circularising:
    """How many opening angles, up to which probability, found in how many bisections.

    degrees_of_freedom: 2 by Wilks' theorem. (The original package takes the number of the *other* parameters, which
    makes the errors too large.)
    """

    angles: int = 10
    bisections: int = 4
    probability: float = 0.95
    degrees_of_freedom: float = 2.0


def circularised(
    likelihood: Likelihood,
    data: Observation,
    best: Tensor,
    loss: Tensor,
    space: Space,
    *,
    settings: Circularising | None = None,
    minimiser: Minimiser | None = None,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(n,) sigma of the direction in rad, around the best parameters (n, p) with their `loss` (n,).

    `scale` (n,) rad is the largest angle to look at; without it, bisections between 0 and 90 degrees find it.
    """
    settings = settings or Circularising()
    found = directions(space.names)
    if not found or not set(found[0]) <= set(space.free):
        raise SpaceError("a circularised error needs a free zenith and azimuth")
    pair = found[0]
    around = _Around(
        likelihood,
        data,
        best,
        loss,
        space.without(*(space.names[i] for i in pair)),
        pair,
        minimiser or Minimiser(),
    )
    draw = lambda *shape: 2 * math.pi * torch.rand(*shape, generator=generator).to(best)  # noqa: E731
    if scale is None:
        scale = _scale(around, draw(settings.bisections, len(best)), settings)
    fractions = (torch.arange(settings.angles) + 1.0).to(best) / settings.angles
    psi = scale[:, None] * fractions
    rise = around.rise(psi, draw(*psi.shape))
    return rayleigh_width(psi, chi_square_cdf(2 * rise, settings.degrees_of_freedom))


@dataclass(frozen=True)
class _Around:
    """Losses at directions around the best fit, everything else fitted."""

    likelihood: Likelihood
    data: Observation
    best: Tensor
    loss: Tensor
    space: Space
    pair: tuple[int, int]
    minimiser: Minimiser

    def rise(self, angle: Tensor, position: Tensor) -> Tensor:
        """(n, m) rise of the loss at opening angles and position angles (n, m)."""
        n, m = angle.shape
        event = torch.arange(n, device=angle.device).repeat_interleave(m)
        start = self.best[event].clone()
        zenith, azimuth = (self.best[event][:, i] for i in self.pair)
        moved = away_from(zenith, azimuth, angle.reshape(-1), position.reshape(-1))
        for column, value in zip(self.pair, moved, strict=True):
            start[:, column] = value
        fitted = fit(self.likelihood, take(self.data, event), start, self.space, self.minimiser)
        return (fitted.loss.reshape(n, m) - self.loss[:, None]).clamp_min(0)


def _scale(around: _Around, positions: Tensor, settings: Circularising) -> Tensor:
    """(n,) about the angle within which the wanted probability lies."""
    low, high = torch.zeros_like(around.loss), torch.full_like(around.loss, math.pi / 2)
    for position in positions:
        middle = (low + high) / 2
        rise = around.rise(middle[:, None], position[:, None])[:, 0]
        outside = chi_square_cdf(2 * rise, settings.degrees_of_freedom) > settings.probability
        low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
    return high


def chi_square_cdf(x: Tensor, degrees: float) -> Tensor:
    """Probability that a chi-square with `degrees` degrees of freedom is below x."""
    return torch.special.gammainc(torch.full_like(x, degrees / 2), x / 2)


def rayleigh_width(psi: Tensor, probability: Tensor) -> Tensor:
    """(n,) sigma with the least squares between 1 - exp(-psi^2 / 2 sigma^2) and `probability`, both (n, m)."""
    low, high = math.log(1e-3) * torch.ones_like(psi[:, 0]), math.log(1e2) * torch.ones_like(psi[:, 0])
    unit = psi.amax(1).clamp_min(1e-12)
    for _ in range(6):  # each narrows the interval to a twentieth
        grid = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, 41).to(psi)
        sigma = unit[:, None] * grid.exp()
        expected = -torch.expm1(-(psi[:, None, :] ** 2) / (2 * sigma[:, :, None] ** 2))
        best = ((expected - probability[:, None, :]) ** 2).sum(2).argmin(1)
        step = (high - low) / 40
        centre = torch.gather(grid, 1, best[:, None])[:, 0]
        low, high = centre - step, centre + step
    return unit * ((low + high) / 2).exp()
