"""Everything that changes while a run trains, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from hpcreco import __version__
from hpcreco.config import Run
from hpcreco.train.sums import Sums
from hpcreco.train.task import Optimization, Stage


@dataclass
class Progress:
    """Where training stands; `sums` are the global sums of the unfinished epoch."""

    stage: int = 0
    stage_epoch: int = 0
    stage_step: int = 0
    epoch: int = 0
    step: int = 0
    data_epoch: int = 0
    position: int = 0
    epoch_steps: int = 0
    gradient_norm: float = 0.0
    best: float | None = None
    epochs_since_best: int = 0
    ended: str = ""
    sums: Sums = field(default_factory=Sums)

    def plain(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "sums"}
        return {**values, "sums": self.sums.state()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of `plain`."""
        return cls(**{**values, "sums": Sums.from_state(values["sums"])})

    def begin_stage(self) -> None:
        """Count the next stage from zero."""
        self.stage += 1
        self.stage_epoch = self.stage_step = self.data_epoch = self.position = 0

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch that has just ended."""
        self.sums, self.epoch_steps, self.gradient_norm = Sums(), 0, 0.0


@dataclass
class Clock:
    """Seconds of the current epoch on this rank; not part of a checkpoint.

    `save`: those that training stood still for checkpoints since the last row, that of the epoch before included.
    """

    data: float = 0.0
    compute: float = 0.0
    save: float = 0.0


@dataclass
class TrainState:
    """The model, what moves it, and where training stands."""

    model: nn.Module
    optimization: Optimization
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    def payload(self, run: Run, stages: tuple[Stage, ...], digests: Mapping[str, str]) -> dict[str, Any]:
        """The content of a checkpoint; nothing in it depends on the number of ranks."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimization.optimizer.state_dict(),
            "schedule": self.optimization.schedule.state_dict(),
            "stage": stages[self.progress.stage].name,
            "progress": self.progress.plain(),
            "config": run.model_dump(mode="json"),
            "identity": run.identity(),
            "digests": dict(digests),
            "code_version": __version__,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Load optimizer and schedule of a checkpoint whose model and progress are already in place."""
        self.optimization.optimizer.load_state_dict(content["optimizer"])
        self.optimization.schedule.load_state_dict(content["schedule"])


def select_trainable(model: nn.Module, stage: Stage) -> None:
    """Freeze what the stage does not train; modules without a trainable parameter go to eval() and stay there."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in stage.trainable))
    set_modes(model)


def set_modes(model: nn.Module) -> None:
    """train() for every module with a trainable parameter of its own or below it, eval() for the frozen ones."""
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def describe(stage: Stage) -> dict[str, Any]:
    """A stage for the log."""
    return {k: v for k, v in asdict(stage).items() if v is not None and k != "until"}
