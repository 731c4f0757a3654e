"""What is done to an event before it is fitted: DOMs that outshine the rest, dead time, pulses that stand close."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hpcreco.experiments.icecube.sources.contract import Observation


@dataclass(frozen=True)
class Preparation:
    """What to do, in this order.

    bright_doms: leave out DOMs with more than `bright_fraction` of the event's charge and `bright_charge` PE.
    partial_exclusion: a DOM with dead time is used outside of it; else it is left out as a whole.
    merge_pulses: pulses of a DOM in the same slot of this many ns become one (0: none do).
    """

    bright_doms: bool = False
    bright_fraction: float = 0.4
    bright_charge: float = 100.0
    partial_exclusion: bool = True
    merge_pulses: float = 0.0

    def __call__(self, data: Observation) -> Observation:
        """The prepared events."""
        if not self.partial_exclusion:
            data = without(data, with_gaps(data))
        if self.bright_doms:
            data = without(data, bright(data, self.bright_fraction, self.bright_charge))
        return merged(data, self.merge_pulses) if self.merge_pulses > 0 else data


def bright(data: Observation, fraction: float = 0.4, at_least: float = 100.0) -> Tensor:
    """(n, M) bool: DOMs with more than `fraction` of the charge on usable DOMs and more than `at_least` PE."""
    charge = data.dom_charge * data.usable
    return (charge > fraction * charge.sum(1, keepdim=True)) & (charge > at_least)


def with_gaps(data: Observation) -> Tensor:
    """(n, M) bool: DOMs that have dead time."""
    found = torch.zeros_like(data.usable)
    found[data.gap_event, data.gap_dom] = True
    return found


def without(data: Observation, doms: Tensor) -> Observation:
    """The same with the DOMs (n, M) bool not usable; their pulses and gaps go too."""
    usable = data.usable & ~doms
    pulse, gap = usable[data.event, data.dom], usable[data.gap_event, data.gap_dom]
    rows = {"charge": pulse, "time": pulse, "event": pulse, "dom": pulse}
    rows |= {"gap_start": gap, "gap_stop": gap, "gap_event": gap, "gap_dom": gap}
    return replace(data, usable=usable, **{name: getattr(data, name)[keep] for name, keep in rows.items()})


def merged(data: Observation, slot: float) -> Observation:
    """Pulses of a DOM in the same slot of `slot` ns, counted from its first, as one at their charge-weighted time."""
    if len(data.time) == 0:
        return data
    key = data.event * data.n_doms + data.dom
    starts = torch.ones_like(key, dtype=torch.bool)
    starts[1:] = key[1:] != key[:-1]
    first = data.time[starts][torch.cumsum(starts, 0) - 1]
    number = ((data.time - first) / slot).floor()
    new = starts.clone()
    new[1:] |= number[1:] != number[:-1]
    group = torch.cumsum(new, 0) - 1
    charge = torch.zeros(int(new.sum()), dtype=torch.float64, device=key.device)
    charge.index_add_(0, group, data.charge.double())
    moment = torch.zeros_like(charge).index_add_(0, group, (data.charge * (data.time - first)).double())
    time = (first[new].double() + moment / charge.clamp_min(1e-30)).to(data.time.dtype)
    return replace(
        data, charge=charge.to(data.charge.dtype), time=time, event=data.event[new], dom=data.dom[new]
    )
