"""ln P(q) of charge: the negative binomial, its limit Poisson, and how over-dispersed a sum of sources is."""

from __future__ import annotations

import torch
from torch import Tensor

_SERIES = 0.02  # below this, ln(1 + x)/x and its like are summed as series
_STIRLING = 20.0  # 1/α from which lnΓ(q + 1/α) − lnΓ(1/α) is taken from Stirling's series


def negative_binomial(charge: Tensor, mean: Tensor, alpha: Tensor, normalised: bool = True) -> Tensor:
    """ln NB(q; μ, α) for real q >= 0; variance μ + αμ².

    lnΓ(q+1/α) − lnΓ(1/α) − lnΓ(q+1) − ln(1+αμ)/α + q ln(αμ/(1+αμ)), rearranged so that α -> 0 is the Poisson
    distribution without cancellation, and computed in float64 whatever comes in. normalised: with −lnΓ(q+1).
    """
    q, mu, a = charge.double(), mean.double().clamp_min(tiny(mean)), alpha.double()
    x = a * mu
    value = _gamma_ratio(q, a) + torch.xlogy(q, mu) - q * torch.log1p(x) - mu * _log1p_over(x)
    if normalised:
        value = value - torch.lgamma(q + 1.0)
    return value.to(mean.dtype)


def poisson(charge: Tensor, mean: Tensor, normalised: bool = True) -> Tensor:
    """ln Poisson(q; μ), continued to real q."""
    q, mu = charge.double(), mean.double().clamp_min(tiny(mean))
    value = torch.xlogy(q, mu) - mu
    if normalised:
        value = value - torch.lgamma(q + 1.0)
    return value.to(mean.dtype)


def dispersion(mean: Tensor, variance: Tensor) -> Tensor:
    """α of a charge with this mean and variance; 0 where the variance is that of Poisson, or rounding makes it less."""
    mu = mean.double()
    return ((variance.double() - mu) / (mu**2 + tiny(mean))).clamp_min(0.0)


def _gamma_ratio(q: Tensor, a: Tensor) -> Tensor:
    """lnΓ(q + 1/a) − lnΓ(1/a) + q ln a, the sum of ln(1 + ka) over k < q for whole q; 0 for a = 0."""
    large = a * _STIRLING < 1.0
    near = torch.where(large, a, 0.0)
    rho = 1.0 / torch.where(large, 1.0, a)
    direct = torch.lgamma(q + rho) - torch.lgamma(rho) - q * torch.log(rho)
    return torch.where(large, _stirling(q, near), direct)


def _stirling(q: Tensor, a: Tensor) -> Tensor:
    """`_gamma_ratio` from lnΓ(z) = (z − ½) ln z − z + ½ ln 2π + 1/12z − 1/360z³ + 1/1260z⁵ − 1/1680z⁷ + ..."""
    y = a * q
    inverse = 1.0 / (1.0 + y)
    tail = torch.zeros_like(y)
    for power, factor in ((7, -1 / 1680), (5, 1 / 1260), (3, -1 / 360), (1, 1 / 12)):
        tail = tail + factor * a**power * (inverse**power - 1.0)
    return q * _excess(y) - 0.5 * torch.log1p(y) + tail


def _excess(y: Tensor) -> Tensor:
    """(1 + y) ln(1 + y)/y − 1, smooth at 0."""
    small = y < _SERIES
    near = torch.where(small, y, 0.0)
    series = torch.zeros_like(y)
    for k in range(9, 0, -1):
        series = (series + (-1) ** (k + 1) / (k * (k + 1))) * near
    far = torch.where(small, 1.0, y)
    return torch.where(small, series, (1.0 + far) * torch.log1p(far) / far - 1.0)


def _log1p_over(x: Tensor) -> Tensor:
    """ln(1 + x)/x, smooth at 0."""
    small = x < _SERIES
    near = torch.where(small, x, 0.0)
    series = torch.zeros_like(x)
    for k in range(9, -1, -1):
        series = series * near + (-1) ** k / (k + 1)
    far = torch.where(small, 1.0, x)
    return torch.where(small, series, torch.log1p(far) / far)


def log(x: Tensor) -> Tensor:
    """ln x, of a tiny number instead of 0."""
    return torch.log(x.clamp_min(tiny(x)))


def tiny(like: Tensor) -> float:
    """A number that its type can hold and that is as good as 0."""
    return 1e-37 if like.dtype.itemsize <= 4 else 1e-307
