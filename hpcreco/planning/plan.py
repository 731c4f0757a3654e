"""All stages of a run put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpcreco.planning import prediction
from hpcreco.planning.measurement import Measurement
from hpcreco.planning.prediction import Prediction, Predictor, Work
from hpcreco.train.session import Session

#: what is averaged over stages, by what it is weighted with
_MEANS = {
    "spent": ("even", "busy", "idle", "balance", "fixed", "network", "upkeep"),
    "steps": ("events_per_step", "step", "passes"),
    "rows": ("validation",),
}


@dataclass(frozen=True)
class Row:
    """Predictions for some number of ranks: of each stage that the run reaches, and of the whole run.

    Where there are several, the start is in the whole run's time alone.
    """

    stages: tuple[Prediction, ...]
    total: Prediction


@dataclass(frozen=True)
class Plan:
    """A predictor for each stage of a run."""

    stages: tuple[Predictor, ...]

    @property
    def first(self) -> Predictor:
        """That of the first stage; what all stages share can be asked of it."""
        return self.stages[0]

    def predict(self, ranks: int) -> Row:
        """The prediction for `ranks` ranks."""
        reached = tuple(stage.predict(ranks) for stage in self.stages if stage.span(ranks).steps)
        if len(reached) == 1:
            return Row(reached, reached[0])
        run = self.first.work.run
        bounded = run.epochs is not None or run.iterations is not None
        known = bounded or all(stage.run is not None for stage in reached)
        own = tuple(replace(stage, run=stage.spent if stage.run is not None else None) for stage in reached)
        return Row(own, total(own, self.first.measured.start, known))

    def scaled(self, factor: float) -> Plan:
        """The same with all computing `factor` times as long."""
        return Plan(
            tuple(Predictor(s.work, s.measured.scaled(factor), overlap=s.overlap) for s in self.stages)
        )


def plan(session: Session, measured: Sequence[Measurement]) -> Plan:
    """The plan of a session's run, of whose stages there is a measurement each."""
    run, validation = session.run, session.validation
    costs = prediction.validated(run, None if validation is None else validation.costs)
    return Plan(
        tuple(
            Predictor(
                Work(run, session.planner(number), costs, session.micro_budget(), session.stages, number),
                one,
                overlap=run.parallel.overlap,
            )
            for number, one in enumerate(measured)
        )
    )


def total(stages: Sequence[Prediction], start: float, known: bool) -> Prediction:
    """The whole run: times add up, shares of them are means weighted by time, memory and reading are the largest.

    start: seconds until the first step; known: whether it is known when the run ends.
    """
    spent = sum(stage.spent for stage in stages)
    steps, rows = sum(stage.steps for stage in stages), sum(stage.rows for stage in stages)
    means: dict[str, Any] = {}
    for weight, names in _MEANS.items():
        weights = [getattr(stage, weight) for stage in stages]
        means |= {
            name: float(np.average([getattr(stage, name) for stage in stages], weights=weights))
            for name in names
        }
    return replace(
        max(stages, key=lambda stage: stage.memory),
        stage="all",
        steps=steps,
        rows=rows,
        steps_per_epoch=round(steps / rows),
        epoch=spent / rows,
        spent=spent,
        run=start + spent if known else None,
        reading=max(stage.reading for stage in stages),
        **means,
    )
