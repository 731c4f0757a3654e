"""Terms weighted and summed: per event, per DOM, or each by its name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpcreco.experiments.icecube.losses.functions import FUNCTIONS, Pieces
from hpcreco.experiments.icecube.settings import LossTerm
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation


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


def pieces(term: LossTerm, expectation: Expectation, data: Observation) -> Pieces:
    """The term times its weight, 0 at DOMs that are not usable."""
    found = FUNCTIONS[term.function](term, expectation, data)
    usable = data.usable
    pulse = None if found.pulse is None else torch.where(usable[data.event, data.dom], found.pulse, 0.0)
    dom = None if found.dom is None else torch.where(usable, found.dom, 0.0)
    return Pieces(*(None if part is None else term.weight * part for part in (pulse, dom, found.event)))


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
