"""From a measurement and the planner's own steps: how long steps, epochs and the run take on any number of ranks.

A step waits for its slowest rank: update + passes * constant + slope * (largest load) + what adding gradients prolongs
it by, which begins with the last micro-batch's backward. The efficiency is the time of an epoch's data on one rank over
R times that on R ranks. What is missing from 1 is lost to four things: balance (waiting for the slowest rank), fixed
(work that does not shrink with the load), network, and upkeep (validation and checkpoints); each is the share of the
time on R ranks that exceeds 1 / R of that on one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hpcreco.config import Run
from hpcreco.data.balance import Balance, simulate
from hpcreco.data.batch import Ref
from hpcreco.data.plan import StepPlanner
from hpcreco.data.sharing import micro_batches, split
from hpcreco.planning.measurement import Measurement
from hpcreco.planning.network import exposed
from hpcreco.planning.spans import Span, spans
from hpcreco.train.task import Stage

#: steps of an epoch that are simulated; their mean stands for the others
STEPS = 64
#: how far beyond the largest cost that was measured a cost may be without being called extrapolated
NEAR = 1.1
#: sums of a few numbers over ranks in every step, beside the gradients: loss terms with control, batch statistics
SMALL_SUMS = 2


@dataclass(frozen=True)
class Work:
    """What is to be done in one of the run's `stages`: its steps, and the costs of the events that are validated."""

    run: Run
    planner: StepPlanner
    validation: np.ndarray
    budget: float | None = None  # largest cost of a micro-batch
    stages: tuple[Stage, ...] = (Stage("main"),)
    number: int = 0


@dataclass(frozen=True)
class Prediction:
    """Seconds and bytes of a stage, or of a whole run, for `ranks` ranks.

    steps, rows: how many steps and epochs it has; spent: the seconds of that; run: the same with the start, None where
    nobody knows when it ends. balance, fixed, network, upkeep: shares of the time that are lost to it. even: mean over
    largest load. busy: share of a step that ranks spend on what grows with the cost of their events. idle: share of
    ranks and steps without an event. reading: share of a step that the reader works. largest: cost of the largest
    micro-batch, `beyond` times the largest that was measured.
    """

    stage: str
    ranks: int
    steps: int
    rows: int
    steps_per_epoch: int
    events_per_step: float
    even: float
    busy: float
    idle: float
    step: float
    epoch: float
    spent: float
    run: float | None
    validation: float
    balance: float
    fixed: float
    network: float
    upkeep: float
    reading: float
    memory: float
    largest: float
    beyond: float
    passes: float

    @property
    def efficiency(self) -> float:
        """Throughput over `ranks` times that of one rank."""
        return 1.0 - self.balance - self.fixed - self.network - self.upkeep

    @property
    def extrapolated(self) -> bool:
        """Whether memory and time of the largest micro-batch lie beyond what was measured."""
        return self.beyond > NEAR


@dataclass(frozen=True)
class _Parts:
    """Mean seconds of a step by what they are spent on, each sum containing the ones before."""

    work: float
    slowest: float
    computing: float
    stepping: float


class Predictor:
    """Predicts `work` by `measured`. overlap: gradients travel while backward computes the next."""

    def __init__(self, work: Work, measured: Measurement, *, overlap: bool = True) -> None:
        self.work, self.measured, self.overlap = work, measured, overlap
        both, cost = measured.forward_backward, float(work.planner.costs.mean())
        # where nothing measurable grows with the cost, shares of it still have to mean something
        self._slope = both.slope or 1e-6 * (both.constant + measured.update + 1e-9) / max(cost, 1.0)
        self._balance = lru_cache(maxsize=None)(self._simulated)
        self._parts = lru_cache(maxsize=None)(self._spent)
        self._validation = lru_cache(maxsize=None)(self._validating)

    def predict(self, ranks: int) -> Prediction:
        """The prediction for `ranks` ranks."""
        balance, parts = self._balance(ranks), self._parts(ranks)
        span = self.span(ranks)
        in_epoch = min(self._steps_in(ranks), span.steps)
        recurring = span.steps * parts.stepping + self._upkeep(ranks)
        spent, alone = self._on_an_epoch(ranks), self._on_an_epoch(1)
        whole = sum(spent)
        lost = [(here - there / ranks) / whole for here, there in zip(spent, alone, strict=True)]
        load = float(balance.loads.max())
        return Prediction(
            stage=self.work.stages[self.work.number].name,
            ranks=ranks,
            steps=span.steps,
            rows=span.rows,
            steps_per_epoch=in_epoch,
            events_per_step=float(balance.events.sum(axis=1).mean()),
            even=_share(parts.work, parts.slowest),
            busy=_share(parts.work, parts.stepping),
            idle=float((balance.events == 0).mean()),
            step=parts.stepping,
            epoch=recurring * in_epoch / span.steps,
            spent=recurring,
            run=self.measured.start + recurring if span.ends else None,
            validation=self._validation(ranks),
            balance=lost[1],
            fixed=lost[2],
            network=lost[3],
            upkeep=lost[4],
            reading=self._waiting(balance)[1],
            memory=self._memory(load),
            largest=self._largest(load),
            beyond=self._largest(load) / max(self.measured.largest, 1e-9),
            passes=float(balance.passes.mean()),
        )

    def _on_an_epoch(self, ranks: int) -> tuple[float, ...]:
        """Seconds that all data once take: work, waiting for the slowest, fixed work, network, upkeep."""
        parts = self._parts(ranks)
        steps = self._slope * float(self.work.planner.costs.sum()) / ranks / max(parts.work, 1e-300)
        per_step = (
            parts.work,
            parts.slowest - parts.work,
            parts.computing - parts.slowest,
            parts.stepping - parts.computing,
            self._upkeep(ranks) / max(1, self.span(ranks).steps),
        )
        return tuple(steps * seconds for seconds in per_step)

    def _steps_in(self, ranks: int) -> int:
        every = self.work.run.validate_every
        if every.unit == "steps":
            return int(every.every)
        return self.work.planner.steps_in(0, ranks)

    def _simulated(self, ranks: int) -> Balance:
        steps = min(STEPS, self.work.planner.steps_in(0, ranks))
        return simulate(self.work.planner, ranks, steps=steps, budget=self.work.budget)

    def _spent(self, ranks: int) -> _Parts:
        """Mean seconds of a step."""
        balance, line = self._balance(ranks), self.measured.forward_backward
        work = self._slope * balance.loads.mean(axis=1)
        slowest = self._slope * balance.loads.max(axis=1)
        waiting, _ = self._waiting(balance)
        computing = slowest + self.measured.update + balance.passes * line.constant + waiting
        slow = balance.loads.argmax(axis=1)  # sums are there when the slowest rank has sent the last
        last = balance.last[np.arange(len(slow)), slow]
        adding = np.array([self._adding(ranks, cost) for cost in last.tolist()])
        return _Parts(*(float(part.mean()) for part in (work, slowest, computing, computing + adding)))

    def _waiting(self, balance: Balance) -> tuple[np.ndarray, float]:
        """Seconds that each step waits for its data, and the share of a step that its reader works."""
        largest, line = balance.loads.max(axis=1), self.measured.forward_backward
        computing = line.slope * largest + self.measured.update + balance.passes * line.constant
        reading = np.asarray(self.measured.reading.at(largest)) / self.work.run.loading.workers
        return np.maximum(0.0, reading - computing), float((reading / np.maximum(computing, 1e-12)).mean())

    def _adding(self, ranks: int, last: float) -> float:
        """Seconds that sums over ranks prolong a step by, whose last micro-batch on the slowest rank costs `last`."""
        if ranks == 1:
            return 0.0
        measured = self.measured
        backward = max(0.0, measured.forward_backward.at(last) - measured.forward.at(last))
        gradients = exposed(measured.gradients, backward if self.overlap else 0.0, measured.network, ranks)
        return gradients + measured.packing + SMALL_SUMS * measured.network.small(ranks)

    def span(self, ranks: int) -> Span:
        """What the stage has of the run."""
        return spans(self.work.run, self.work.stages, self._steps_in(ranks))[self.work.number]

    def _upkeep(self, ranks: int) -> float:
        """Seconds of all validations and checkpoints."""
        span, run = self.span(ranks), self.work.run
        saves = span.saves(run, self._parts(ranks).stepping)
        return span.validations(run) * self._validation(ranks) + saves * self.measured.save

    def _validating(self, ranks: int) -> float:
        """Seconds of the rank that validates longest."""
        costs, line = self.work.validation.tolist(), self.measured.forward
        limit = self.work.budget or float(self.work.planner.costs.max())
        shares = split([Ref(0, number) for number in range(len(costs))], costs, ranks)
        own = [[costs[number] for number in share] for share in shares]
        return max(len(micro_batches(part, limit)) * line.constant + line.slope * sum(part) for part in own)

    def _largest(self, load: float) -> float:
        """Cost of the largest micro-batch where the largest load of a rank is `load`."""
        if self.work.budget is None:
            return load
        return min(load, max(self.work.budget, float(self.work.planner.costs.max())))

    def _memory(self, load: float) -> float:
        """Bytes of a rank: at the largest micro-batch, with what is read ahead (on a GPU that stays with the host)."""
        computing = self.measured.memory.at(self._largest(load))
        if self.measured.device != "cpu":
            return float(computing)
        return float(computing + (self.work.run.loading.prefetch + 1) * self.measured.data.at(load))


def useful(planner: StepPlanner) -> int:
    """Ranks beyond which some have nothing to do in every step."""
    if planner.mode == "files":
        return max(1, int(planner.units // planner.size))
    first = planner.step(0, 0, 1)
    return max(1, len(first.refs))


def largest_alone(planner: StepPlanner, budget: float | None) -> float:
    """Cost of the largest micro-batch of one rank in the first steps."""
    load = float(simulate(planner, 1, steps=min(STEPS, planner.steps_in(0, 1))).loads.max())
    return load if budget is None else min(load, max(budget, float(planner.costs.max())))


def validated(run: Run, costs: np.ndarray | None) -> np.ndarray:
    """Costs of the events that a validation looks at, of those of all `costs`; None: there is no validation."""
    if costs is None:
        return np.zeros(0)
    if run.validation_events is None or run.validation_events >= len(costs):
        return np.asarray(costs, float)
    return np.asarray(costs, float)[np.arange(run.validation_events) * len(costs) // run.validation_events]


def doubling(last: int) -> Iterable[int]:
    """1, 2, 4 ... up to `last`."""
    ranks = 1
    while ranks <= last:
        yield ranks
        ranks *= 2


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0
