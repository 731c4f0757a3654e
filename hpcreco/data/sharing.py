"""Who works on which events of a step, and in how many passes.

A step is known before ranks are; how it is shared out depends on it and their number alone, so that all agree.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcreco.data.batch import Ref
from hpcreco.data.plan import Events, PlanError, Step, references

_EVEN = 0.98  # efficiency at which packs are dealt to ranks as they are


@dataclass(frozen=True)
class Share:
    """One rank's part of a step, cut into micro-batches; their number is the same on every rank.

    micro_batches: (refs, costs) of each, possibly empty. draw: which realisation of the events' randomness.
    efficiency: mean / largest cost over ranks of the whole step.
    """

    micro_batches: tuple[tuple[tuple[Ref, ...], tuple[float, ...]], ...]
    draw: int
    efficiency: float
    step: Step | None = None


def split(
    refs: Sequence[Ref], costs: Sequence[float], ranks: int, whole_files: bool = False
) -> list[list[int]]:
    """Positions in `refs` for each rank, balanced by cost: the costliest first, each to the least loaded rank.

    Longest-processing-time rule (Graham 1969); ties go by order. Within a rank the order of `refs` is kept.
    whole_files: events of one shard stay on one rank.
    """
    return _deal([ref.shard for ref in refs] if whole_files else range(len(refs)), costs, ranks)


def assign(step: Step, ranks: int, whole_files: bool = False) -> list[list[int]]:
    """The `split` of a step's events over ranks; where a step is made of packs, that of the packs if it is as even."""
    if not step.packs:
        return split(step.refs, step.costs, ranks, whole_files)
    packs = _deal(step.packs, step.costs, ranks)
    even = efficiency(_loads(step, packs))
    if even >= _EVEN:
        return packs
    events = split(step.refs, step.costs, ranks)
    return events if efficiency(_loads(step, events)) > even else packs


def _loads(step: Step, shares: Sequence[Sequence[int]]) -> list[float]:
    """Cost of each rank."""
    return [sum(step.costs[i] for i in part) for part in shares]


def _deal(keys: Sequence[int], costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Positions for each rank; those that have the same key stay together."""
    groups: dict[int, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    members = list(groups.values())
    loads = [sum(costs[i] for i in group) for group in members]
    heap = [(0.0, 0, rank) for rank in range(ranks)]  # cost, events, rank: free events spread as well
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for number in sorted(range(len(members)), key=lambda n: (-loads[n], n)):
        cost, events, rank = heapq.heappop(heap)
        shares[rank].extend(members[number])
        heapq.heappush(heap, (cost + loads[number], events + len(members[number]), rank))
    return [sorted(share) for share in shares]


def micro_batches(costs: Sequence[float], budget: float | None, count: int | None = None) -> list[list[int]]:
    """Positions 0..n-1 cut in order into lists of cost <= `budget` each, at least one event in each.

    budget None: everything in one. count: padded with empty lists to that many.
    """
    cut: list[list[int]] = []
    filled = 0.0
    for position, cost in enumerate(costs):
        if not cut or (budget is not None and filled + cost > budget):
            cut.append([])
            filled = 0.0
        cut[-1].append(position)
        filled += cost
    if count is not None:
        if count < len(cut):
            raise PlanError(f"{len(cut)} micro-batches are needed, {count} were asked for")
        cut += [[] for _ in range(count - len(cut))]
    return cut


def share(step: Step, rank: int, ranks: int, budget: float | None = None, whole_files: bool = False) -> Share:
    """This rank's part of `step`; the draw of its events is the step's epoch."""
    shares = assign(step, ranks, whole_files)
    costs = [[step.costs[i] for i in part] for part in shares]
    count = max(1, *(len(micro_batches(part, budget)) for part in costs))
    mine = micro_batches(costs[rank], budget, count)
    batches = tuple(_pick(step.refs, step.costs, [shares[rank][i] for i in batch]) for batch in mine)
    return Share(batches, step.epoch, efficiency([sum(part) for part in costs]), step)


def sweep(
    index: Events,
    costs: np.ndarray,
    rank: int,
    ranks: int,
    budget: float | None = None,
    whole_files: bool = False,
    draw: int = 0,
    count: int | None = None,
) -> list[Share]:
    """Every event exactly once over all ranks, in index order within a rank, one micro-batch per share.

    count: only so many events, spread evenly over all.

    For validation and inference; the number of shares differs between ranks, so nothing collective may
    happen inside the loop over them.
    """
    first = np.asarray(index.first, np.int64)
    total = int(first[-1])
    events = np.arange(total) if count is None or count >= total else np.arange(count) * total // count
    refs = references(first, events)
    values = [float(cost) for cost in costs[events]]
    shares = split(refs, values, ranks, whole_files)
    balance = efficiency([sum(values[i] for i in part) for part in shares])
    mine = shares[rank]
    cut = micro_batches([values[i] for i in mine], budget)
    return [Share((_pick(refs, values, [mine[i] for i in batch]),), draw, balance) for batch in cut]


def efficiency(loads: Sequence[float]) -> float:
    """Mean over largest cost per rank: the share of time the ranks work if cost is time; 1 when idle."""
    largest = max(loads, default=0.0)
    return 1.0 if largest == 0 else sum(loads) / (len(loads) * largest)


def _pick(
    refs: Sequence[Ref], costs: Sequence[float], positions: Sequence[int]
) -> tuple[tuple[Ref, ...], tuple[float, ...]]:
    return tuple(refs[i] for i in positions), tuple(costs[i] for i in positions)
