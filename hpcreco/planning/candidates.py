"""Micro-batches to measure with: like those of training, of rising cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcreco.data.batch import Ref
from hpcreco.data.plan import references
from hpcreco.train.session import Part

#: costs to measure at: between the smallest batch and the largest that training would meet
POINTS = 5


@dataclass(frozen=True)
class Candidate:
    """A micro-batch to take a step with."""

    refs: tuple[Ref, ...]
    costs: tuple[float, ...]

    @property
    def cost(self) -> float:
        """What its events cost together."""
        return sum(self.costs)


def candidates(part: Part, largest: float) -> list[Candidate]:
    """Micro-batches of rising cost up to `largest`, made of events as they come, each event once a batch."""
    costs, first = part.costs, np.asarray(part.index.first, np.int64)
    some = np.flatnonzero(costs > 0)
    some = some if len(some) else np.arange(len(costs))
    order = np.random.default_rng(0).permutation(some)
    low = max(float(costs[order].min()), 1e-9)
    out: dict[tuple[int, ...], Candidate] = {}
    for wanted in np.geomspace(low, max(largest, low), POINTS):
        events = _gather(costs, order, float(wanted))
        out[events] = Candidate(references(first, np.array(events)), tuple(costs[list(events)].tolist()))
    return sorted(out.values(), key=lambda one: one.cost)


def _gather(costs: np.ndarray, order: np.ndarray, wanted: float) -> tuple[int, ...]:
    """Different events of about the cost `wanted` in all: in their order, those that still fit."""
    left, chosen = wanted * (1 + 1e-9), []
    for event in order.tolist():
        if costs[event] <= left:
            chosen.append(event)
            left -= float(costs[event])
    return tuple(sorted(chosen or [int(order[np.argmin(costs[order])])]))
