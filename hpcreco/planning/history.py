"""What a run that has trained already says about the prediction of its rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcreco import attempts
from hpcreco.planning.plan import Plan
from hpcreco.slurm.pace import pace, rows_of

#: relative difference in events per step from which a run's steps are other steps
_OTHER = 0.2


@dataclass(frozen=True)
class Evidence:
    """A run's steps on `ranks` ranks took `measured` seconds where `predicted` were predicted."""

    run: Path
    ranks: int
    measured: float
    predicted: float

    @property
    def factor(self) -> float:
        """What to scale computing by."""
        return self.measured / self.predicted

    def __str__(self) -> str:
        return (
            f"{self.run} took {self.measured:.3g} s a step on {self.ranks} rank(s), the measurement says "
            f"{self.predicted:.3g}: times are scaled by {self.factor:.2f} (--no-history: as measured)"
        )


def evidence(output_dir: Path, plan: Plan) -> Evidence | None:
    """The evidence of the run in `output_dir`, of the stage that it is in.

    None before the stage's second epoch, for the first fills caches, and when its steps had other numbers of events.
    """
    rows = rows_of(output_dir)
    name = rows[-1].get("stage") if rows else None
    rows = [row for row in rows if row.get("stage") == name]
    starts = attempts.read(output_dir / "attempts.csv")
    found = pace(rows)
    if len(rows) < 2 or found is None or not starts:
        return None
    ranks = starts[-1].ranks
    stages = plan.predict(ranks).stages
    expected = next((stage for stage in stages if stage.stage == name), stages[0])
    if abs(found.events_per_second * found.step_seconds / expected.events_per_step - 1) > _OTHER:
        return None
    return Evidence(output_dir, ranks, found.step_seconds, expected.step)
