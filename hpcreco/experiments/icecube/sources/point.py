"""Sources that shine from a point: what K of them together lead one to expect, from each one's light.

Arrays lie DOM first: (M, n, K) for M DOMs, n events, K sources. Parameters are (1, n, K, p), or (M, n, K, p) where
every DOM has other sources (`nearest`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hpcreco.experiments.icecube.sources import streaming
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation


class Delays(Protocol):
    """When light arrives: distributions of rows of sources (R, K)."""

    def take(self, rows: Tensor, quantile: Tensor | None = None) -> Delays:
        """The distributions of some rows; given the quantiles (R,) of the charge, if they depend on it."""

    def pdf(self, time: Tensor) -> Tensor:
        """(R, K) densities at time (R,), 1/ns."""

    def cdf(self, time: Tensor) -> Tensor:
        """(R, K) fractions before time (R,)."""


class Arrivals(Protocol):
    """Time distributions of all sources at all DOMs, worked out only where they are asked for."""

    def at(self, event: Tensor, dom: Tensor) -> Delays:
        """Those at H places, event and dom (H,)."""


@dataclass(frozen=True)
class Emission:
    """charge (M, n, K) PE; dispersion (M, n, K) or a number, α of variance = charge + α charge²; when it comes."""

    charge: Tensor
    dispersion: Tensor | float
    arrivals: Arrivals


class PointSource(ConfiguredSource):
    """A source whose first three parameters are its position."""

    #: numbers stored per DOM, event and source while gradients are wanted; decides how many go in one chunk
    row_size: int = 64

    @abstractmethod
    def emit(self, parameters: Tensor, data: Observation) -> Emission:
        """Light of sources with parameters (1 | M, n, K, p)."""

    def expect(self, parameters: Tensor, data: Observation, nearest: int | None = None) -> Expectation:
        """See `Source`. nearest: every DOM sees only so many sources, those next to it."""
        rows = parameters.transpose(0, 1)[None]
        if nearest is not None and nearest < parameters.shape[0]:
            rows = streaming.nearest(rows, self.constants.on("position", parameters), nearest)
        per_source = self.row_size * data.n_doms * data.n_events * parameters.element_size()
        weights = tuple(self.parameters())
        return streaming.total(
            lambda block: together(self.emit(block, data), data), rows, per_source, weights
        )


def together(emission: Emission, data: Observation) -> Expectation:
    """The expectation of all sources of an emission."""
    charge, hits = emission.charge, data.hits
    m, n, k = charge.shape
    place = hits.dom * n + hits.event
    delays = emission.arrivals.at(hits.event, hits.dom)
    at_hits = charge.reshape(m * n, k)[place]
    full = charge.sum(2).T
    variance = (charge + emission.dispersion * charge**2).sum(2).T
    at_pulses = at_hits[hits.pulse]
    picked = delays.take(hits.pulse, data.quantile)
    rate = (at_pulses * picked.pdf(data.time)).sum(1)
    integral = (at_pulses * picked.cdf(data.counted_time)).sum(1)
    if not len(data.gap_start):
        return Expectation(full, variance, full, rate, integral)
    picked = delays.take(hits.gap)
    inside = (picked.cdf(data.gap_stop) - picked.cdf(data.gap_start)).clamp(0.0, 1.0)
    lost = torch.zeros_like(at_hits).index_add(0, hits.gap, inside)
    seen = at_hits * (1.0 - lost).clamp_min(torch.finfo(charge.dtype).eps)
    dispersion = emission.dispersion
    if isinstance(dispersion, Tensor):
        dispersion = dispersion.reshape(m * n, k)[place]
    where = (hits.event, hits.dom)
    pulse, gap = data.gaps_before
    missed = (at_hits[hits.gap] * inside).sum(1)
    return Expectation(
        charge=full.index_put(where, seen.sum(1)),
        variance=variance.index_put(where, (seen + dispersion * seen**2).sum(1)),
        full_charge=full,
        rate=rate,
        integral=integral.index_add(0, pulse, -missed[gap]),
    )
