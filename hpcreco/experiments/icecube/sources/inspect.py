"""Look into any hypothesis: its densities at times of one's choice, and events drawn from it.

All of it goes through `Source.expect`, so it holds for every source, with gaps, alone or nested::

    density = pdf(source, parameters, data, torch.linspace(9000, 12000, 300), doms=[17, 18])   # (n, 2, 300)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source

_SECTIONS, _ROUNDS = 16, 6  # 16^6 places in a readout: 0.001 ns
_ROWS = 100_000  # times asked in one call


def asked(data: Observation, times: Tensor, doms: Sequence[int] | Tensor) -> Observation:
    """`data` with other pulses: of every event, at each of `doms`, one at each of `times` (T,) or (n, T)."""
    device, n = data.window.device, data.n_events
    doms = torch.as_tensor(doms, dtype=torch.int64, device=device)
    times = torch.as_tensor(times, device=device).to(data.window.dtype)
    grid = times.expand(n, times.shape[-1])[:, None, :].expand(n, len(doms), -1)
    event = torch.arange(n, device=device)[:, None, None].expand_as(grid)
    return _with_pulses(
        data, grid.reshape(-1), event.reshape(-1), doms[None, :, None].expand_as(grid).reshape(-1)
    )


def pdf(
    source: Source, parameters: Tensor, data: Observation, times: Tensor, doms: Sequence[int] | Tensor
) -> Tensor:
    """(n, D, T) densities at `times` (T,) or (n, T) ns at DOMs (D,), 1/ns, of hypotheses with parameters (n, p).

    0 within gaps; windows and gaps are those of `data`.
    """
    question = asked(data, times, doms)
    with torch.no_grad():
        value = source.expect(parameters[None], question).pulse_pdf(question)
    return torch.where(question.in_gap, 0.0, value).reshape(data.n_events, len(doms), -1)


def cdf(
    source: Source, parameters: Tensor, data: Observation, times: Tensor, doms: Sequence[int] | Tensor
) -> Tensor:
    """(n, D, T) fractions of the charge outside gaps that come before `times`; else as `pdf`."""
    question = asked(data, times, doms)
    with torch.no_grad():
        value = source.expect(parameters[None], question).pulse_cdf(question)
    return value.reshape(data.n_events, len(doms), -1)


def rates(
    source: Source, parameters: Tensor, data: Observation, times: Tensor, doms: Sequence[int] | Tensor
) -> dict[str, Tensor]:
    """Part of the hypothesis, ``outer/inner`` -> (n, D, T) charge per ns that is expected of it; they add up."""
    question = asked(data, times, doms)
    shape = (data.n_events, len(doms), -1)
    with torch.no_grad():
        parts = source.parts(parameters[None], question)
        return {name or "all": found.rate.reshape(shape) for name, found in parts}


def sample(source: Source, parameters: Tensor, data: Observation, rng: np.random.Generator) -> Observation:
    """Events drawn from hypotheses with parameters (n, p): unit pulses in the windows, gaps and usable DOMs of `data`.

    A DOM's charge is negative binomial with the expected mean and variance, Poisson where these are equal.
    """
    with torch.no_grad():
        counts = _counts(source.expect(parameters[None], _with_pulses(data, *_nothing(data))), data, rng)
        event, dom = counts.nonzero(as_tuple=True)
        repeated = counts[event, dom]
        event, dom = (torch.repeat_interleave(index, repeated) for index in (event, dom))
        quantile = torch.as_tensor(rng.random(len(event)), device=event.device).to(data.window.dtype)
        parts = [
            _inverse_cdf(source, parameters, data, *rows)
            for rows in zip(*(c.split(_ROWS // _SECTIONS) for c in (quantile, event, dom)), strict=True)
        ]
    time = torch.cat(parts) if parts else quantile
    seen = torch.isfinite(time)  # the rest comes before or after the readout
    return _sorted(_with_pulses(data, time[seen], event[seen], dom[seen]))


def _inverse_cdf(
    source: Source, parameters: Tensor, data: Observation, quantile: Tensor, event: Tensor, dom: Tensor
) -> Tensor:
    """(P,) times at which the cdf reaches each quantile, NaN where that is outside of the readout."""
    low, high = data.window[event].unbind(1)
    fraction = torch.arange(1, _SECTIONS, device=low.device, dtype=low.dtype) / _SECTIONS
    outside = torch.zeros_like(low, dtype=torch.bool)
    for step in range(_ROUNDS):
        inner = low[:, None] + (high - low)[:, None] * fraction
        grid = torch.cat([low[:, None], inner, high[:, None]], 1)
        rows = grid.shape[1]
        question = _with_pulses(
            data, grid.reshape(-1), event.repeat_interleave(rows), dom.repeat_interleave(rows)
        )
        reached = source.expect(parameters[None], question).pulse_cdf(question).reshape(-1, rows)
        if step == 0:
            outside = (reached[:, 0] > quantile) | (reached[:, -1] < quantile)
        k = (reached[:, 1:-1] < quantile[:, None]).sum(1, keepdim=True)
        low, high = grid.gather(1, k)[:, 0], grid.gather(1, k + 1)[:, 0]
    found = _with_pulses(data, high, event, dom)
    before = torch.nextafter(found.counted_time, torch.full_like(high, -torch.inf))
    time = torch.where(found.in_gap, before, high)  # to the gap's edge, which rounding went over
    return torch.where(outside, torch.nan, time)


def _counts(expectation: Expectation, data: Observation, rng: np.random.Generator) -> Tensor:
    """(n, M) int64 unit charges."""
    mean = expectation.charge.double().cpu().numpy()
    excess = (expectation.variance - expectation.charge).double().clamp_min(0.0).cpu().numpy()
    alpha = np.divide(excess, mean**2, out=np.zeros_like(mean), where=mean > 0)
    spread = alpha > 1e-9
    shape = 1.0 / np.where(spread, alpha, 1.0)
    mean = np.where(spread, mean * rng.gamma(shape) / shape, mean)
    return torch.as_tensor(rng.poisson(mean), device=data.usable.device) * data.usable


def _nothing(data: Observation) -> tuple[Tensor, Tensor, Tensor]:
    return data.time[:0], data.event[:0], data.dom[:0]


def _with_pulses(data: Observation, time: Tensor, event: Tensor, dom: Tensor) -> Observation:
    return dataclasses.replace(data, charge=torch.ones_like(time), time=time, event=event, dom=dom)


def _sorted(data: Observation) -> Observation:
    """Pulses by event, DOM and time."""
    order = torch.argsort(data.time, stable=True)
    place = data.event * data.n_doms + data.dom
    order = order[torch.argsort(place[order], stable=True)]
    return _with_pulses(data, data.time[order], data.event[order], data.dom[order])
