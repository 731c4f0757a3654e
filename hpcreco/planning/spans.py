"""How much of a run each of its stages is: the rules of the training loop, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpcreco.config import Run
from hpcreco.train.task import Stage


@dataclass(frozen=True)
class Span:
    """What a stage has of the run: `steps` of them, in `rows` epochs of which the first is number `begins`.

    last: it ends with the run. ends: whether the config says when it ends; where a metric does, one epoch stands for
    as many as there will be.
    """

    steps: int
    rows: int
    begins: int
    last: bool
    ends: bool

    def validations(self, run: Run) -> int:
        """Validations in it; the run's last epoch has one in any case."""
        if run.validate_every.unit == "steps":
            return self.rows
        every, end = max(1, int(run.validate_every.every)), self.begins + self.rows
        return end // every - self.begins // every + bool(self.last and end % every)

    def saves(self, run: Run, step: float) -> int:
        """Checkpoints in it, steps taking `step` seconds; one at its end."""
        every = run.save.every
        saves = {
            "epochs": self.rows / max(1, int(every)),
            "steps": self.steps / max(1, int(every)),
            "seconds": self.steps * step / every,
        }[run.save.unit]
        return max(1, int(saves))


def spans(run: Run, stages: Sequence[Stage], per_epoch: int) -> tuple[Span, ...]:
    """The span of each stage, where an epoch has `per_epoch` steps; without steps for what the run does not reach.

    A stage that a metric ends early is taken to last as long as it may; one that nothing else ends counts for one
    epoch, and the rest of the run goes to the stages behind it.
    """
    epochs = run.epochs if run.epochs is not None else float("inf")
    left = min(epochs * per_epoch, run.iterations if run.iterations is not None else float("inf"))
    found: list[Span] = []
    begins = 0
    for number, stage in enumerate(stages):
        own = _own(stage, per_epoch)
        final = number + 1 == len(stages)
        ends = own < float("inf") or (left < float("inf") and (final or stage.until is None))
        steps = int(min(own if ends else per_epoch, left))
        if not found:
            steps = max(1, steps)
        rows = -(-steps // per_epoch)
        found.append(Span(steps, rows, begins, False, ends))
        begins += rows
        left = max(0, left - (rows * per_epoch if run.epochs is not None else steps))
    reached = max(number for number, span in enumerate(found) if span.steps)
    found[reached] = replace(found[reached], last=True)
    return tuple(found)


def _own(stage: Stage, per_epoch: int) -> float:
    """Steps after which the stage itself ends, whatever the metrics say."""
    by_epochs = stage.epochs * per_epoch if stage.epochs is not None else float("inf")
    return min(by_epochs, stage.steps if stage.steps is not None else float("inf"))
