"""Mixtures of distributions in time, whose shapes a network puts out.

Latents come in blocks: for each family in turn its first latent for all components, its second ..., then the weights of
all components of all families. Within the formulas times are in units of `UNIT` ns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import elu

from hpcreco.experiments.icecube.sources.incomplete_gamma import log_density, lower_gamma

UNIT = 1000.0  # ns
_MARGIN = 0.001  # smallest width, in units: 1 ns
_Density = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Family:
    """One kind of distribution.

    latents: names of its shape parameters. shape: raw network outputs (..., latents, C) and the components' start
    values (latents, C) -> shape parameters. start: start values where none are given. pdf, cdf: times (..., 1) and
    shape parameters (..., latents, C) -> (..., C).
    """

    latents: tuple[str, ...]
    start: tuple[float, ...]
    shape: Callable[[Tensor, Tensor], Tensor]
    pdf: _Density
    cdf: _Density


def positive(raw: Tensor, start: Tensor, margin: float = _MARGIN) -> Tensor:
    """elu(raw + s) + 1 + margin, above `margin`, where s makes it `start` for raw 0."""
    s = torch.where(start > 1.0 + margin, start - 1.0 - margin, torch.log((start - margin).clamp(1e-6, 1.0)))
    return elu(raw + s) + 1.0 + margin


def _gauss_shape(raw: Tensor, start: Tensor) -> Tensor:
    mean, sigma, r = raw.unbind(-2)
    mean0, sigma0, r0 = start.unbind(-2)
    return torch.stack([mean + mean0, positive(sigma, sigma0), positive(r, r0)], dim=-2)


def _gauss_pdf(x: Tensor, latents: Tensor) -> Tensor:
    mean, sigma, r = latents.unbind(-2)
    z = (x - mean) / sigma
    z = torch.where(z < 0, z, z / r)
    return math.sqrt(2.0 / math.pi) / (sigma * (1.0 + r)) * torch.exp(-0.5 * z * z)


def _gauss_cdf(x: Tensor, latents: Tensor) -> Tensor:
    mean, sigma, r = latents.unbind(-2)
    z = (x - mean) / (sigma * math.sqrt(2.0))
    below = z < 0
    return (1.0 + torch.where(below, 1.0, r) * torch.erf(torch.where(below, z, z / r))) / (1.0 + r)


def _gamma_shape(raw: Tensor, start: Tensor) -> Tensor:
    alpha, beta = raw.unbind(-2)
    alpha0, beta0 = start.unbind(-2)
    return torch.stack([positive(alpha, alpha0), positive(beta, beta0)], dim=-2)


def _gamma_pdf(x: Tensor, latents: Tensor) -> Tensor:
    alpha, beta = latents.unbind(-2)
    inside = x > 0
    safe = torch.where(inside, x, 1.0)
    return torch.where(inside, beta * torch.exp(log_density(alpha, beta * safe)), 0.0)


def _gamma_cdf(x: Tensor, latents: Tensor) -> Tensor:
    alpha, beta = latents.unbind(-2)
    return lower_gamma(alpha, beta * x.expand_as(beta))


def _shifted_shape(raw: Tensor, start: Tensor) -> Tensor:
    inner = _gamma_shape(raw[..., 1:, :], start[..., 1:, :])
    return torch.cat([raw[..., :1, :] + start[..., :1, :], inner], dim=-2)


def _exponential_pdf(x: Tensor, latents: Tensor) -> Tensor:
    beta = latents[..., 0, :]
    return torch.where(x > 0, beta * torch.exp(-beta * x.clamp_min(0.0)), 0.0)


#: start values are those of the original's asymmetric Gaussians: mean 1 µs, width 3 µs, r 2
FAMILIES = {
    "asymmetric_gaussian": Family(
        ("mu", "sigma", "r"), (1.0, 3.001, 2.001), _gauss_shape, _gauss_pdf, _gauss_cdf
    ),
    "gamma": Family(("alpha", "beta"), (2.0, 4.0), _gamma_shape, _gamma_pdf, _gamma_cdf),
    "shifted_gamma": Family(
        ("offset", "alpha", "beta"),
        (0.0, 2.0, 4.0),
        _shifted_shape,
        lambda x, v: _gamma_pdf(x - v[..., 0, :], v[..., 1:, :]),
        lambda x, v: _gamma_cdf(x - v[..., 0, :], v[..., 1:, :]),
    ),
    "exponential": Family(
        ("beta",),
        (4.0,),
        positive,
        _exponential_pdf,
        lambda x, v: -torch.expm1(-v[..., 0, :] * x.clamp_min(0.0)),
    ),
}


@dataclass(frozen=True)
class Component:
    """`count` distributions of one family; starts: values of its latents before training, each for all of them or one
    for each; weight_factor: on their weights.
    """

    family: str
    count: int
    starts: tuple[tuple[float, ...], ...] = ()
    weight_factor: float = 1.0

    def start(self) -> Tensor:
        """(latents, count) float64."""
        rows = self.starts or tuple((value,) for value in FAMILIES[self.family].start)
        return torch.stack([torch.tensor(row, dtype=torch.float64).expand(self.count) for row in rows])


class Mixture:
    """From raw network outputs to distributions."""

    def __init__(self, components: Sequence[Component], sort: bool = False) -> None:
        self.components, self.sort = tuple(components), sort
        self.n_components = sum(c.count for c in components)
        self.n_latents = (
            sum(len(FAMILIES[c.family].latents) * c.count for c in components) + self.n_components
        )
        self._starts = [c.start() for c in self.components]
        factors = [torch.full((c.count,), c.weight_factor, dtype=torch.float64) for c in self.components]
        self._factor = torch.cat([torch.zeros(0, dtype=torch.float64), *factors])

    def decode(self, raw: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Raw outputs (..., n_latents) -> shape parameters (..., latents, C) of each component, weights (..., C)."""
        shapes, position = [], 0
        for component, start in zip(self.components, self._starts, strict=True):
            family = FAMILIES[component.family]
            size = len(family.latents) * component.count
            block = raw[..., position : position + size].unflatten(-1, (len(family.latents), component.count))
            shape = family.shape(block, start.to(raw))
            if self.sort and component.family == "asymmetric_gaussian":
                shape = torch.cat([shape[..., :1, :].sort(-1).values, shape[..., 1:, :]], dim=-2)
            shapes.append(shape)
            position += size
        weight = (elu(1.0 + raw[..., position:]) + 1.00001) * self._factor.to(raw)
        return tuple(shapes), weight / weight.sum(-1, keepdim=True)


@dataclass(frozen=True)
class MixtureDelays:
    """Mixtures of rows of sources (R, K); time: (R, K) ns that they count from."""

    mixture: Mixture
    shapes: tuple[Tensor, ...]
    weight: Tensor
    time: Tensor
    unit: float = UNIT  # what densities are per, in units of ns: 1 / `unit` of them are per ns

    def take(self, rows: Tensor, quantile: Tensor | None = None) -> MixtureDelays:
        """See `Delays`."""
        shapes = tuple(shape[rows] for shape in self.shapes)
        return MixtureDelays(self.mixture, shapes, self.weight[rows], self.time[rows], self.unit)

    def pdf(self, time: Tensor) -> Tensor:
        """(R, K) densities, 1/ns."""
        return self._mixed(time, [FAMILIES[c.family].pdf for c in self.mixture.components]) / self.unit

    def cdf(self, time: Tensor) -> Tensor:
        """(R, K)."""
        return self._mixed(time, [FAMILIES[c.family].cdf for c in self.mixture.components])

    def _mixed(self, time: Tensor, functions: Sequence[_Density]) -> Tensor:
        x = ((time[:, None] - self.time) / UNIT)[..., None]
        values = [function(x, shape) for function, shape in zip(functions, self.shapes, strict=True)]
        return (self.weight * torch.cat(values, dim=-1)).sum(-1)
