"""What every source offers, and the data it is asked about.

DOMs are numbered through the whole detector, ``string * doms_per_string + dom``: M of them. Times are in ns,
charges in photo-electrons (PE), densities in 1/ns.

All that a likelihood needs of independent sources adds up (`Expectation.__add__`): expected charges, variances, the
rate of charge at a pulse's time. The density of a pulse's time is then the rate over the charge, which is exact also
with dead time windows, because both are without what falls into them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Hits:
    """H places (event, DOM) that have pulses or gaps, each once, by event and DOM; int64.

    event, dom: (H,). pulse: (P,), gap: (W,) the place of every pulse and gap.
    """

    event: Tensor
    dom: Tensor
    pulse: Tensor
    gap: Tensor


@dataclass(frozen=True)
class Observation:
    """What the detector saw in n events: P pulses, W dead time windows ("gaps"), the DOMs that can be used.

    charge, time: (P,) PE, ns; sorted by event, DOM and time. event, dom: (P,) int64.
    window: (n, 2) start and end of the readout, ns.
    gap_start, gap_stop: (W,) ns; gap_event, gap_dom: (W,) int64; a DOM's gaps do not overlap and lie in the readout.
    usable: (n, M) bool, False where a DOM is excluded from the whole event.
    """

    charge: Tensor
    time: Tensor
    event: Tensor
    dom: Tensor
    window: Tensor
    gap_start: Tensor
    gap_stop: Tensor
    gap_event: Tensor
    gap_dom: Tensor
    usable: Tensor

    @property
    def n_events(self) -> int:
        """Events, those without pulses included."""
        return len(self.window)

    @property
    def n_doms(self) -> int:
        """DOMs of the whole detector."""
        return self.usable.shape[1]

    @cached_property
    def hits(self) -> Hits:
        """The DOMs of events that time densities are asked of."""
        keys = torch.cat([self.event * self.n_doms + self.dom, self.gap_event * self.n_doms + self.gap_dom])
        hit, row = torch.unique(keys, return_inverse=True)
        n = len(self.charge)
        return Hits(torch.div(hit, self.n_doms, rounding_mode="floor"), hit % self.n_doms, row[:n], row[n:])

    @cached_property
    def gaps_before(self) -> tuple[Tensor, Tensor]:
        """(pulse, gap): numbers of all pairs in which the gap is over at its DOM when the pulse comes."""
        pulse, gap = self._gap_pairs
        over = self.time[pulse] >= self.gap_stop[gap]
        return pulse[over], gap[over]

    @cached_property
    def quantile(self) -> Tensor:
        """(P,) in (0, 1]: the share of its DOM's charge that has come with each pulse."""
        place = self.event * self.n_doms + self.dom
        reached = torch.cumsum(self.charge.double(), 0)
        first = torch.ones_like(place, dtype=torch.bool)
        first[1:] = place[1:] != place[:-1]
        begun = (reached - self.charge)[first][torch.cumsum(first, 0) - 1]
        total = self.dom_charge.double().reshape(-1)[place]
        return ((reached - begun) / total.clamp_min(1e-30)).clamp(0.0, 1.0).to(self.time.dtype)

    @cached_property
    def counted_time(self) -> Tensor:
        """(P,) ns until when charge was counted: the time, or the start of the gap that it falls into."""
        pulse, gap = self._inside
        return self.time.index_put((pulse,), self.gap_start[gap].to(self.time.dtype))

    @cached_property
    def in_gap(self) -> Tensor:
        """(P,) bool, does a gap hold the time? Of no recorded pulse."""
        found = torch.zeros_like(self.time, dtype=torch.bool)
        found[self._inside[0]] = True
        return found

    @cached_property
    def _inside(self) -> tuple[Tensor, Tensor]:
        """(pulse, gap) where the gap holds the pulse's time."""
        pulse, gap = self._gap_pairs
        inside = (self.time[pulse] >= self.gap_start[gap]) & (self.time[pulse] < self.gap_stop[gap])
        return pulse[inside], gap[inside]

    @cached_property
    def _gap_pairs(self) -> tuple[Tensor, Tensor]:
        """(pulse, gap) for every pulse and gap of the same place."""
        order = torch.argsort(self.hits.pulse, stable=True)
        row = self.hits.pulse[order]
        first = torch.searchsorted(row, self.hits.gap)
        count = torch.searchsorted(row, self.hits.gap, right=True) - first
        gap = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        within = torch.arange(len(gap), device=gap.device) - (torch.cumsum(count, 0) - count)[gap]
        return order[first[gap] + within], gap

    @cached_property
    def dom_charge(self) -> Tensor:
        """(n, M) summed charge of every DOM, PE; those that are not usable included."""
        total = torch.zeros(self.usable.numel(), dtype=torch.float64, device=self.charge.device)
        total.index_add_(0, self.event * self.n_doms + self.dom, self.charge.double())
        return total.reshape(self.usable.shape).to(self.charge.dtype)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Observation:
        """The same on another device, its floating-point values in `dtype`."""
        moved = {
            field.name: getattr(self, field.name).to(
                device=device, dtype=dtype if getattr(self, field.name).is_floating_point() else None
            )
            for field in fields(self)
        }
        return Observation(**moved)


@dataclass(frozen=True)
class Expectation:
    """What sources lead one to expect of an `Observation`; adds up over independent sources.

    charge: (n, M) expected charge outside the gaps. variance: (n, M) its variance.
    full_charge: (n, M) expected charge, gaps included.
    rate: (P,) expected charge per ns at the pulse's DOM and time.
    integral: (P,) expected charge of the pulse's DOM up to the pulse's time, gaps left out.
    """

    charge: Tensor
    variance: Tensor
    full_charge: Tensor
    rate: Tensor
    integral: Tensor

    def __add__(self, other: Expectation) -> Expectation:
        return Expectation(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def pulse_pdf(self, data: Observation) -> Tensor:
        """(P,) density of a pulse's time at its DOM, 1/ns; integrates to 1 over the time outside the gaps.

        0 where no charge is expected at all.
        """
        return self.rate / self._charge_at(data)

    def pulse_cdf(self, data: Observation) -> Tensor:
        """(P,) fraction of the DOM's expected charge up to the pulse's time."""
        return (self.integral / self._charge_at(data)).clamp(0.0, 1.0)

    @property
    def excluded(self) -> Tensor:
        """(n, M) fraction of the expected charge that falls into gaps."""
        return 1.0 - self.charge / self.full_charge.clamp_min(torch.finfo(self.full_charge.dtype).tiny)

    def _charge_at(self, data: Observation) -> Tensor:
        return self.charge[data.event, data.dom].clamp_min(torch.finfo(self.charge.dtype).tiny)


class Source(nn.Module):
    """A hypothesis, or a part of one: parameters of an event in, an `Expectation` out."""

    #: names of the parameters, in the order of the last axis of `expect`'s argument
    parameter_names: tuple[str, ...] = ()

    @abstractmethod
    def expect(self, parameters: Tensor, data: Observation) -> Expectation:
        """What is expected of K such sources together; parameters (K, n, len(parameter_names)).

        K is 1 for a hypothesis that is fitted; many cascades of one kind are evaluated in one call.
        """

    def parts(self, parameters: Tensor, data: Observation) -> Iterator[tuple[str, Expectation]]:
        """Expectations by name, ``outer/inner`` for nested ones; a source without parts is its own."""
        yield "", self.expect(parameters, data)
