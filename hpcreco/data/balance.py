"""How evenly a plan loads its ranks: the planner's own steps, split as in training, without reading an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hpcreco.data import sharing
from hpcreco.data.plan import PlanError, StepPlanner


@dataclass(frozen=True)
class Balance:
    """What the ranks do in consecutive steps.

    loads: float64 (steps, ranks), summed cost of a rank's events; events: int64 (steps, ranks), their number;
    passes: int64 (steps,), micro-batches that every rank runs; last: float64 (steps, ranks), cost of the last of them.
    """

    loads: np.ndarray
    events: np.ndarray
    passes: np.ndarray
    last: np.ndarray

    @property
    def efficiency(self) -> np.ndarray:
        """(steps,) mean over largest load; 1 where nothing costs anything."""
        return np.array([sharing.efficiency(loads) for loads in self.loads.tolist()])

    @property
    def overall(self) -> float:
        """Sum over steps of the mean load / sum of the largest: the share of all time that ranks work, if cost is time.

        Long steps count more than in the mean of `efficiency`.
        """
        largest = float(self.loads.max(axis=1).sum())
        return float(self.loads.mean(axis=1).sum()) / largest if largest else 1.0

    def quantiles(self, at: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> dict[float, float]:
        """Quantiles of the steps' efficiency."""
        return dict(zip(at, np.quantile(self.efficiency, at).tolist(), strict=True))


def simulate(
    planner: StepPlanner, ranks: int, epoch: int = 0, steps: int | None = None, budget: float | None = None
) -> Balance:
    """The loads of `ranks` ranks in the first `steps` steps from the beginning of `epoch` on; None: of that epoch.

    budget: largest cost of a micro-batch, as in training. More steps than an epoch has go on into the next ones.
    Raises PlanError for fewer than one rank or step.
    """
    if ranks < 1 or (steps is not None and steps < 1):
        raise PlanError(f"expected at least one rank and one step, found {ranks} and {steps}")
    whole_files = planner.mode == "files"
    loads, events, passes, last = [], [], [], []
    for step in islice(planner.stream(epoch, ranks=ranks), steps):
        costs = [[step.costs[i] for i in part] for part in sharing.assign(step, ranks, whole_files)]
        loads.append([sum(part) for part in costs])
        events.append([len(part) for part in costs])
        cut = [sharing.micro_batches(part, budget) for part in costs]
        passes.append(max(1, *map(len, cut)))
        last.append(
            [
                sum(part[i] for i in batches[-1]) if len(batches) == passes[-1] else 0.0
                for part, batches in zip(costs, cut, strict=True)
            ]
        )
        if steps is None and step.last:
            break
    return Balance(
        np.array(loads, np.float64),
        np.array(events, np.int64),
        np.array(passes, np.int64),
        np.array(last, np.float64),
    )
