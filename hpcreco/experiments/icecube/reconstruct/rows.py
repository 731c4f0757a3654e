"""Events of an `Observation` picked out, in any order and any number of times."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcreco.experiments.icecube.sources.contract import Observation


def take(data: Observation, events: Tensor) -> Observation:
    """The events with the numbers `events` (k,) int64 as an `Observation` of k events; repeated ones are repeated."""
    pulse, event = _rows(data.event, data.n_events, events)
    gap, gap_event = _rows(data.gap_event, data.n_events, events)
    return Observation(
        charge=data.charge[pulse],
        time=data.time[pulse],
        event=event,
        dom=data.dom[pulse],
        window=data.window[events],
        gap_start=data.gap_start[gap],
        gap_stop=data.gap_stop[gap],
        gap_event=gap_event,
        gap_dom=data.gap_dom[gap],
        usable=data.usable[events],
    )


def _rows(owner: Tensor, n: int, events: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the wanted events, one event after another, and the new number of each row's event."""
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=n)
    first = torch.cumsum(counts, 0) - counts
    wanted = counts[events]
    new = torch.repeat_interleave(torch.arange(len(events), device=owner.device), wanted)
    start = torch.cumsum(wanted, 0) - wanted
    within = torch.arange(len(new), device=owner.device) - start[new]
    return order[first[events][new] + within], new
