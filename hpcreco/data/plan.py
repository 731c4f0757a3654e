"""Which events make a step, and who works on them.

A step is a pure function of (seed, stage, epoch, position): every rank plans it alone and all agree.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from hpcreco.data.batch import Ref
from hpcreco.data.randomness import PLAN, permutation

MODES = ("files", "events", "cost")


class PlanError(ValueError):
    """The plan cannot be made from these data and settings."""

    exit_code = 2


class Events(Protocol):
    """What the planner needs of an index: `first[s]` is the global number of shard s's first event."""

    @property
    def first(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Step:
    """One global step: the events all ranks together work on.

    position: units of the epoch consumed before it; next_position: after it; last: it ends its epoch.
    """

    epoch: int
    position: int
    next_position: int
    last: bool
    refs: tuple[Ref, ...]
    costs: tuple[float, ...]


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


class StepPlanner:
    """Cuts the epochs of one stage into steps.

    A unit is what an epoch permutes: a non-empty shard in mode `files`, otherwise an event.
    files: a step takes `size` shards per rank, the last of an epoch possibly fewer, never padded.
    events: a step takes `size` events. cost: a step takes events until the next one would exceed `size`,
    at least one. Steps of `events` and `cost` do not depend on the number of ranks.
    """

    def __init__(
        self,
        index: Events,
        costs: np.ndarray,
        mode: str,
        size: float,
        seed: int,
        stage: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.first = np.asarray(index.first, np.int64)
        self.costs = np.asarray(costs, np.float64)
        self.mode, self.size, self.seed, self.stage, self.shuffle = mode, size, seed, stage, shuffle
        if mode not in MODES:
            raise PlanError(f"step mode {mode!r}: expected one of {', '.join(MODES)}")
        if not size > 0 or (mode != "cost" and size != int(size)):
            raise PlanError(
                f"step size {size!r}: expected a positive {'number' if mode == 'cost' else 'integer'}"
            )
        if len(self.costs) != self.first[-1]:
            raise PlanError(f"{len(self.costs)} costs for {self.first[-1]} events")
        if len(self.costs) == 0:
            raise PlanError("there is no event to train on: the selected files are empty")
        if not np.all(np.isfinite(self.costs) & (self.costs >= 0)):
            raise PlanError("the cost of an event must be finite and not negative")
        self.shards = np.flatnonzero(np.diff(self.first) > 0)
        self._order = lru_cache(maxsize=2)(self._permuted)
        self._running = lru_cache(maxsize=2)(lambda epoch: np.cumsum(self.costs[self._order(epoch)]))

    @property
    def units(self) -> int:
        """Units in one epoch."""
        return len(self.shards) if self.mode == "files" else len(self.costs)

    def step(self, epoch: int, position: int, ranks: int) -> Step:
        """The step of `epoch` that starts after `position` units."""
        if not 0 <= position < self.units:
            raise PlanError(f"position {position} is outside an epoch of {self.units} {self._unit_name}")
        end = self._end(epoch, position, ranks)
        chosen = self._order(epoch)[position:end]
        if self.mode == "files":
            shards = self.shards[chosen]
            chosen = np.concatenate([np.arange(self.first[s], self.first[s + 1]) for s in shards])
        refs = references(self.first, chosen)
        return Step(epoch, position, end, end == self.units, refs, tuple(self.costs[chosen].tolist()))

    def stream(self, epoch: int = 0, position: int = 0, ranks: int = 1) -> Iterator[Step]:
        """Steps without end, epoch after epoch, starting after `position` units of `epoch`."""
        while True:
            if position >= self.units:
                epoch, position = epoch + 1, 0
            step = self.step(epoch, position, ranks)
            yield step
            position = step.next_position

    def steps_in(self, epoch: int, ranks: int) -> int:
        """Number of steps of `epoch` from its beginning."""
        return self.steps_before(epoch, self.units, ranks)

    def steps_before(self, epoch: int, position: int, ranks: int) -> int:
        """Number of steps of `epoch` that lead to `position`."""
        if self.mode == "files":
            return -(-position // (int(self.size) * ranks))
        if self.mode == "events":
            return -(-position // int(self.size))
        count, at = 0, 0
        while at < position:
            at, count = self._end(epoch, at, ranks), count + 1
        return count

    @property
    def _unit_name(self) -> str:
        return "files" if self.mode == "files" else "events"

    def _permuted(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.units)
        return permutation(self.units, self.seed, PLAN, self.stage, epoch)

    def _end(self, epoch: int, position: int, ranks: int) -> int:
        if self.mode == "files":
            return min(position + int(self.size) * ranks, self.units)
        if self.mode == "events":
            return min(position + int(self.size), self.units)
        running = self._running(epoch)
        before = running[position - 1] if position else 0.0
        return max(position + 1, int(np.searchsorted(running, before + self.size, side="right")))


def references(first: np.ndarray, events: np.ndarray) -> tuple[Ref, ...]:
    """Global event numbers -> refs. first: (n_shards + 1,) first event of each shard."""
    shards = np.searchsorted(first, events, side="right") - 1
    numbers = (events - first[shards]).tolist()
    return tuple(Ref(s, e) for s, e in zip(shards.tolist(), numbers, strict=True))


def split(
    refs: Sequence[Ref], costs: Sequence[float], ranks: int, whole_files: bool = False
) -> list[list[int]]:
    """Positions in `refs` for each rank, balanced by cost: the costliest first, each to the least loaded rank.

    Longest-processing-time rule (Graham 1969); ties go by order. Within a rank the order of `refs` is kept.
    whole_files: events of one shard stay on one rank.
    """
    groups: dict[int, list[int]] = {}
    for position, ref in enumerate(refs):
        groups.setdefault(ref.shard if whole_files else position, []).append(position)
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
    shares = split(step.refs, step.costs, ranks, whole_files)
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
