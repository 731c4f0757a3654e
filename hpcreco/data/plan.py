"""Which events make a step.

A step is a pure function of (seed, stage, epoch, position): every rank plans it alone and all agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from hpcreco.data.batch import Ref
from hpcreco.data.packing import Packed, pack_epoch
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

    position: units of the epoch consumed before it; next_position: after it; last: it ends its epoch. packs: which
    pack of the epoch each event belongs to; empty where there are none.
    """

    epoch: int
    position: int
    next_position: int
    last: bool
    refs: tuple[Ref, ...]
    costs: tuple[float, ...]
    packs: tuple[int, ...] = ()


class StepPlanner:
    """Cuts the epochs of one stage into steps.

    A unit is what an epoch permutes: a non-empty shard in mode `files`, otherwise an event.
    files: a step takes `size` shards per rank, the last of an epoch possibly fewer, never padded.
    events: a step takes `size` events. cost: a step takes events until the next one would exceed `size`,
    at least one. Steps of `events` and `cost` do not depend on the number of ranks.
    rank_size, in mode `cost`: the epoch is first packed into parts of at most this cost (see `packing`), and a step
    takes size / rank_size of them, all of about the same cost: so many ranks, or a divisor of it, have equal loads.
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
        rank_size: float | None = None,
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
        if rank_size is not None and not (mode == "cost" and 0 < rank_size <= size):
            raise PlanError(
                f"rank size {rank_size!r}: expected a positive number up to the step size {size!r}, in mode 'cost'"
            )
        self.rank_size = rank_size
        if len(self.costs) != self.first[-1]:
            raise PlanError(f"{len(self.costs)} costs for {self.first[-1]} events")
        if len(self.costs) == 0:
            raise PlanError("there is no event to train on: the selected files are empty")
        if not np.all(np.isfinite(self.costs) & (self.costs >= 0)):
            raise PlanError("the cost of an event must be finite and not negative")
        self.shards = np.flatnonzero(np.diff(self.first) > 0)
        self._packed = lru_cache(maxsize=2)(self._pack)
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
        costs = tuple(self.costs[chosen].tolist())
        return Step(epoch, position, end, end == self.units, refs, costs, self._packs(epoch, position, end))

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
        if self.rank_size is not None:
            return int(np.searchsorted(self._packed(epoch).steps, position)) + 1 if position else 0
        count, at = 0, 0
        while at < position:
            at, count = self._end(epoch, at, ranks), count + 1
        return count

    @property
    def _unit_name(self) -> str:
        return "files" if self.mode == "files" else "events"

    def _permuted(self, epoch: int) -> np.ndarray:
        return self._packed(epoch).order if self.rank_size is not None else self._plain(epoch)

    def _plain(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.units)
        return permutation(self.units, self.seed, PLAN, self.stage, epoch)

    def _pack(self, epoch: int) -> Packed:
        assert self.rank_size is not None
        per_step = int(self.size / self.rank_size * (1 + 1e-9))  # 0.3 / 0.1 is 3
        key = (self.seed, self.stage, epoch) if self.shuffle else None
        return pack_epoch(self.costs, self._plain(epoch), self.rank_size, per_step, key)

    def _packs(self, epoch: int, position: int, end: int) -> tuple[int, ...]:
        if self.rank_size is None:
            return ()
        return tuple(
            np.searchsorted(self._packed(epoch).packs, np.arange(position, end), side="right").tolist()
        )

    def _end(self, epoch: int, position: int, ranks: int) -> int:
        if self.mode == "files":
            return min(position + int(self.size) * ranks, self.units)
        if self.mode == "events":
            return min(position + int(self.size), self.units)
        if self.rank_size is not None:
            steps = self._packed(epoch).steps
            return int(steps[np.searchsorted(steps, position, side="right")])
        running = self._running(epoch)
        before = running[position - 1] if position else 0.0
        return max(position + 1, int(np.searchsorted(running, before + self.size, side="right")))


def references(first: np.ndarray, events: np.ndarray) -> tuple[Ref, ...]:
    """Global event numbers -> refs. first: (n_shards + 1,) first event of each shard."""
    shards = np.searchsorted(first, events, side="right") - 1
    numbers = (events - first[shards]).tolist()
    return tuple(Ref(s, e) for s, e in zip(shards.tolist(), numbers, strict=True))
