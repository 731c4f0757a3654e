"""What a likelihood is made of: terms of -ln L, each a sum over pulses, over DOMs or of whole events.

DOMs that are excluded from an event count nowhere, neither do pulses there. ``q`` is charge, ``μ`` what is expected
of it, ``α`` its over-dispersion (variance μ + αμ²), all in photo-electrons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube.settings import LossTerm
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation

_SERIES = 0.02  # below this, ln(1 + x)/x and its like are summed as series
_STIRLING = 20.0  # 1/α from which lnΓ(q + 1/α) − lnΓ(1/α) is taken from Stirling's series


@dataclass(frozen=True)
class Pieces:
    """One term of -ln L before it is summed: pulse (P,), dom (n, M), event (n,); None where it has no such part."""

    pulse: Tensor | None = None
    dom: Tensor | None = None
    event: Tensor | None = None


# ------------------------------------------------------------------------------------------ charge distributions


def negative_binomial(charge: Tensor, mean: Tensor, alpha: Tensor, normalised: bool = True) -> Tensor:
    """ln NB(q; μ, α) for real q >= 0; variance μ + αμ².

    lnΓ(q+1/α) − lnΓ(1/α) − lnΓ(q+1) − ln(1+αμ)/α + q ln(αμ/(1+αμ)), rearranged so that α -> 0 is the Poisson
    distribution without cancellation, and computed in float64 whatever comes in. normalised: with −lnΓ(q+1).
    """
    q, mu, a = charge.double(), mean.double().clamp_min(_tiny(mean)), alpha.double()
    x = a * mu
    value = _gamma_ratio(q, a) + torch.xlogy(q, mu) - q * torch.log1p(x) - mu * _log1p_over(x)
    if normalised:
        value = value - torch.lgamma(q + 1.0)
    return value.to(mean.dtype)


def poisson(charge: Tensor, mean: Tensor, normalised: bool = True) -> Tensor:
    """ln Poisson(q; μ), continued to real q."""
    q, mu = charge.double(), mean.double().clamp_min(_tiny(mean))
    value = torch.xlogy(q, mu) - mu
    if normalised:
        value = value - torch.lgamma(q + 1.0)
    return value.to(mean.dtype)


def dispersion(mean: Tensor, variance: Tensor) -> Tensor:
    """α of a charge with this mean and variance; 0 where the variance is that of Poisson, or rounding makes it less."""
    mu = mean.double()
    return ((variance.double() - mu) / (mu**2 + _tiny(mean))).clamp_min(0.0)


def _log1p_over(x: Tensor) -> Tensor:
    """ln(1 + x)/x, smooth at 0."""
    small = x < _SERIES
    near = torch.where(small, x, 0.0)
    series = torch.zeros_like(x)
    for k in range(9, -1, -1):
        series = series * near + (-1) ** k / (k + 1)
    far = torch.where(small, 1.0, x)
    return torch.where(small, series, torch.log1p(far) / far)


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


def _tiny(like: Tensor) -> float:
    return 1e-37 if like.dtype.itemsize <= 4 else 1e-307


def _log(x: Tensor) -> Tensor:
    """ln x, of a tiny number instead of 0."""
    return torch.log(x.clamp_min(_tiny(x)))


# ------------------------------------------------------------------------------------------ pieces of terms


def _pulse_time(expectation: Expectation, data: Observation) -> Tensor:
    """(P,) ln p(t) of every pulse."""
    return _log(expectation.rate) - _log(expectation.charge[data.event, data.dom])


def _time(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    return Pieces(pulse=-data.charge * _pulse_time(expectation, data))


def _dom_charge(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """−ln P(q) of every DOM, P the negative binomial with the sources' mean and variance."""
    alpha = dispersion(expectation.charge, expectation.variance)
    if term.min_alpha is not None:
        alpha = alpha.clamp_min(term.min_alpha)
    return Pieces(
        dom=-negative_binomial(data.dom_charge, expectation.charge, alpha, term.add_normalization_term)
    )


def _event_charge(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    charge, mean, variance = _totals(expectation, data)
    alpha = dispersion(mean, variance)
    return Pieces(event=-negative_binomial(charge, mean, alpha, term.add_normalization_term))


def _totals(expectation: Expectation, data: Observation) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) charge, expected charge and its variance, of all usable DOMs of an event together."""
    parts = (data.dom_charge, expectation.charge, expectation.variance)
    charge, mean, variance = (torch.where(data.usable, part, 0.0).sum(1) for part in parts)
    return charge, mean, variance


def _extended(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    dom = -poisson(data.dom_charge, expectation.charge, term.add_normalization_term)
    return Pieces(_time(term, expectation, data).pulse, dom)


def _time_and_charge(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    return Pieces(_time(term, expectation, data).pulse, _dom_charge(term, expectation, data).dom)


def _charge_shape(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    total = torch.where(data.usable, expectation.charge, 0.0).sum(1, keepdim=True)
    return Pieces(dom=-data.dom_charge * (_log(expectation.charge) - _log(total)))


def _dom_and_event_charge(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """Every DOM's charge, and a normal distribution of the event's."""
    charge, mean, variance = _totals(expectation, data)
    event = 0.5 * (charge - mean) ** 2 / variance.clamp_min(_tiny(variance))
    if term.add_normalization_term:
        event = event + 0.5 * _log(2 * math.pi * variance)
    return Pieces(dom=_dom_charge(term, expectation, data).dom, event=event)


def _first_pulse(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """The time of a DOM's first pulse among all its charge Q: −[ln Q + q₀ ln p + (Q − q₀) ln(1 − cdf)].

    mpe_quantile: of the pulse with which that fraction of the charge has come, instead; what came before it adds
    its charge times ln cdf.
    """
    place = data.event * data.n_doms + data.dom
    first = torch.ones_like(place, dtype=torch.bool)
    first[1:] = place[1:] != place[:-1]
    total = data.dom_charge.reshape(-1)[place]
    begins = torch.cumsum(data.charge.double(), 0) - data.charge
    start = begins[first][torch.cumsum(first, 0) - 1]
    before = (begins - start).to(data.charge.dtype)
    wanted = term.mpe_quantile * total
    chosen = first if term.mpe_quantile == 0 else (before < wanted) & (before + data.charge >= wanted)
    cdf = expectation.pulse_cdf(data)
    value = torch.log(total) + data.charge * _pulse_time(expectation, data)
    after = (total - before - data.charge).clamp_min(0.0)
    value = value + after * torch.log1p(-cdf.clamp_max(1.0 - torch.finfo(cdf.dtype).eps))
    if term.mpe_quantile:
        value = value + torch.where(before > 0, before * _log(cdf), 0.0)
    return Pieces(pulse=-torch.where(chosen, value, 0.0))


def _given_quantile(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """−ln p(t | quantile), every pulse once whatever its charge; of pulses within a range of quantiles."""
    q = data.quantile
    chosen = (q >= term.min_charge_quantile) & (q <= term.max_charge_quantile)
    return Pieces(pulse=torch.where(chosen, -_pulse_time(expectation, data), 0.0))


FUNCTIONS: Mapping[str, Callable[[LossTerm, Expectation, Observation], Pieces]] = {
    "unbinned_pulse_time_llh": _time,
    "negative_binomial_charge_pdf": _dom_charge,
    "unbinned_extended_pulse_llh": _extended,
    "unbinned_pulse_and_dom_charge_pdf": _time_and_charge,
    "dom_charge_pdf": _dom_charge,
    "negative_binomial_event_charge_pdf": _event_charge,
    "normalized_dom_charge_pdf": _charge_shape,
    "dom_and_event_charge_pdf": _dom_and_event_charge,
    "unbinned_pulse_time_mpe_llh": _first_pulse,
    "unbinned_charge_quantile_pdf": _given_quantile,
}


# ------------------------------------------------------------------------------------------ sums


def pieces(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """The term times its weight, 0 at DOMs that are not usable."""
    found = FUNCTIONS[term.function](term, expectation, data)
    usable = data.usable
    pulse = None if found.pulse is None else torch.where(usable[data.event, data.dom], found.pulse, 0.0)
    dom = None if found.dom is None else torch.where(usable, found.dom, 0.0)
    return Pieces(*(None if part is None else term.weight * part for part in (pulse, dom, found.event)))


def terms(losses: Sequence[LossTerm], expectation: Expectation, data: Observation) -> dict[str, Tensor]:
    """(n,) by name of the term: its sum over everything of each event."""
    return {
        name: _per_event(pieces(term, expectation, data), data)
        for name, term in names(losses).items()
        if not term.is_prior
    }


def parts(losses: Sequence[LossTerm], expectation: Expectation, data: Observation) -> Pieces:
    """All terms but priors added up, before anything is summed over: pulse (P,), dom (n, M), event (n,), none None."""
    pulse, event = torch.zeros_like(expectation.rate), torch.zeros_like(expectation.charge[:, 0])
    dom = torch.zeros_like(expectation.charge)
    for term in losses:
        if term.is_prior:
            continue
        found = pieces(term, expectation, data)
        event = event if found.event is None else event + found.event
        dom = dom if found.dom is None else dom + found.dom
        pulse = pulse if found.pulse is None else pulse + found.pulse
    return Pieces(pulse, dom, event)


def at_doms(pulse: Tensor, data: Observation) -> Tensor:
    """(n, M) sums of what pulses (P,) have, each at its DOM."""
    place = data.event * data.n_doms + data.dom
    return pulse.new_zeros(data.usable.numel()).index_add(0, place, pulse).reshape(data.usable.shape)


def names(losses: Sequence[LossTerm]) -> dict[str, LossTerm]:
    """Terms by name: their function's, numbered where it occurs again."""
    named: dict[str, LossTerm] = {}
    for term in losses:
        again = sum(name.partition("#")[0] == term.function for name in named)
        named[f"{term.function}#{again + 1}" if again else term.function] = term
    return named


def _per_event(found: Pieces, data: Observation) -> Tensor:
    """(n,) summed in float64, so that an event's loss hardly depends on how bright it is."""
    parts = [part for part in (found.pulse, found.dom, found.event) if part is not None]
    total = torch.zeros(data.n_events, dtype=torch.float64, device=data.charge.device)
    if found.pulse is not None:
        total = total.index_add(0, data.event, found.pulse.double())
    if found.dom is not None:
        total = total + found.dom.double().sum(1)
    if found.event is not None:
        total = total + found.event.double()
    return total.to(parts[0].dtype)


# ------------------------------------------------------------------------------------------ priors


def outside(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """0 within [low, high], outside e^{10(1 + excess/width)} − e^{10}: steep, but smooth enough to be minimised.

    Goes on straight beyond e^{60}, which float32 can still hold.
    """
    width = high - low
    excess = torch.relu(low - value) + torch.relu(value - high)
    exponent = 10.0 * (1.0 + excess / width)
    straight = torch.relu(exponent - 60.0)
    return torch.exp(exponent.clamp_max(60.0)) * (1.0 + straight) - math.exp(10.0)


def prior(term: LossTerm, parameters: Tensor, parameter_names: Sequence[str]) -> Tensor:
    """(n,) of parameters (n, p): `outside` of uniform ranges, half the squared pull of normal ones."""
    total = torch.zeros_like(parameters[:, 0])
    for name, (low, high) in term.uniform.items():
        value = parameters[:, _column(parameter_names, name)]
        total = total + torch.where((value < low) | (value > high), outside(value, low, high), 0.0)
    for name, (mean, width) in term.normal.items():
        total = total + 0.5 * ((parameters[:, _column(parameter_names, name)] - mean) / width) ** 2
    return term.weight * total


def _column(parameter_names: Sequence[str], name: str) -> int:
    if name not in parameter_names:
        raise ConfigError(
            f"loss_module_settings: a prior on {name!r}; the hypothesis has {', '.join(parameter_names)}"
        )
    return list(parameter_names).index(name)
