"""What a run that has trained already says about the prediction of its rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcreco import attempts
from hpcreco.planning.prediction import Predictor
from hpcreco.slurm.pace import pace_of, rows_of

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


def evidence(output_dir: Path, predictor: Predictor) -> Evidence | None:
    """The evidence of the run in `output_dir`.

    None before its second epoch, for the first fills caches, and when its steps had other numbers of events.
    """
    if len(rows_of(output_dir)) < 2:
        return None
    pace, starts = pace_of(output_dir), attempts.read(output_dir / "attempts.csv")
    if pace is None or not starts:
        return None
    ranks = starts[-1].ranks
    expected = predictor.predict(ranks)
    events = pace.events_per_second * pace.step_seconds
    if abs(events / expected.events_per_step - 1) > _OTHER:
        return None
    return Evidence(output_dir, ranks, pace.step_seconds, expected.step)
