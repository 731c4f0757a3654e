"""The loss functions that a config names: what each term of -ln L is, before it is weighted and summed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcreco.experiments.icecube.losses.charge import dispersion, log, negative_binomial, poisson, tiny
from hpcreco.experiments.icecube.settings import LossTerm
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation


@dataclass(frozen=True)
class Pieces:
    """One term of -ln L before it is summed: pulse (P,), dom (n, M), event (n,); None where it has no such part."""

    pulse: Tensor | None = None
    dom: Tensor | None = None
    event: Tensor | None = None


def _time(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    return Pieces(pulse=-data.charge * _pulse_time(expectation, data))


def _pulse_time(expectation: Expectation, data: Observation) -> Tensor:
    """(P,) ln p(t) of every pulse."""
    return log(expectation.rate) - log(expectation.charge[data.event, data.dom])


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
    return Pieces(dom=-data.dom_charge * (log(expectation.charge) - log(total)))


def _dom_and_event_charge(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """Every DOM's charge, and a normal distribution of the event's."""
    charge, mean, variance = _totals(expectation, data)
    event = 0.5 * (charge - mean) ** 2 / variance.clamp_min(tiny(variance))
    if term.add_normalization_term:
        event = event + 0.5 * log(2 * math.pi * variance)
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
        value = value + torch.where(before > 0, before * log(cdf), 0.0)
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
