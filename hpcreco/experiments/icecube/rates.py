"""Learning rates and optimizers as the original's configs name them: Keras' schedules, joined at boundaries.

The rate is a function of the step alone, so that a resumed run continues its schedule and nothing has to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from hpcreco.config import ConfigError, nearest
from hpcreco.experiments.icecube.settings import Rate, Schedule
from hpcreco.train.schedule import build_optimizer

#: step (0-based) -> learning rate
Course = Callable[[int], float]

#: Keras' names of optimizer arguments -> torch's; betas are joined by hand
_ARGUMENTS = {"epsilon": "eps", "rho": "alpha"}
_OPTIMIZERS = {"Nadam": "NAdam", "RMSProp": "RMSprop"}
#: what Keras adds to the root of the second moment; torch adds 1e-8
_KERAS_EPSILON = 1e-7
_WITH_EPSILON = ("Adam", "AdamW", "NAdam", "Adamax", "RAdam", "RMSprop", "Adagrad", "Adadelta")


def constant(rate: float) -> Course:
    """The same rate at every step."""
    return lambda step: rate


def polynomial_decay(
    initial_learning_rate: float,
    decay_steps: float,
    end_learning_rate: float = 1e-4,
    power: float = 1.0,
    cycle: bool = False,
) -> Course:
    """end + (initial − end)(1 − min(step, decay)/decay)^power; `cycle` lengthens the decay instead of ending it."""

    def rate(step: int) -> float:
        length = decay_steps * max(1, math.ceil(step / decay_steps)) if cycle else decay_steps
        left = 1.0 - min(step, length) / length
        return end_learning_rate + (initial_learning_rate - end_learning_rate) * left**power

    return rate


def exponential_decay(
    initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
) -> Course:
    """initial · decay_rate^(step / decay_steps); `staircase` rounds the exponent down."""

    def rate(step: int) -> float:
        exponent = step / decay_steps
        return initial_learning_rate * decay_rate ** (math.floor(exponent) if staircase else exponent)

    return rate


def cosine_decay(initial_learning_rate: float, decay_steps: float, alpha: float = 0.0) -> Course:
    """Half a cosine from the initial rate down to `alpha` times it."""

    def rate(step: int) -> float:
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(step, decay_steps) / decay_steps))
        return initial_learning_rate * ((1.0 - alpha) * cosine + alpha)

    return rate


def joined(boundaries: Sequence[int], courses: Sequence[Course]) -> Course:
    """`courses` one after another, each counting from its own beginning.

    Step s belongs to the first course up to and including boundaries[0], to the second up to and including
    boundaries[1], and so on; the last one has no end.
    """

    def rate(step: int) -> float:
        number = sum(step > boundary for boundary in boundaries)
        begin = boundaries[number - 1] if number else 0
        return courses[number](step - begin)

    return rate


_SIMPLE: Mapping[str, Callable[..., Course]] = {
    "PolynomialDecay": polynomial_decay,
    "ExponentialDecay": exponential_decay,
    "CosineDecay": cosine_decay,
}
MULTI = "MultiLearningRateScheduler"


def course(rate: Rate, where: str = "learning_rate") -> Course:
    """The rate that a config describes: a number, or a schedule by name with its settings. Raises ConfigError."""
    if isinstance(rate, (int, float)):
        return constant(float(rate))
    name, settings = rate.name, dict(rate.settings)
    if name == MULTI:
        return _multi(settings, where)
    if name not in _SIMPLE:
        close = nearest(name, [*_SIMPLE, MULTI])
        raise ConfigError(
            f"{where}: there is no schedule {name!r}; known are {', '.join([*_SIMPLE, MULTI])}"
            + (f"; did you mean {close!r}?" if close else "")
        )
    settings.pop("name", None)  # Keras' label of the operation
    try:
        return _SIMPLE[name](**settings)
    except TypeError as error:
        raise ConfigError(f"{where}.settings: {error}") from error


def _multi(settings: Mapping[str, Any], where: str) -> Course:
    unknown = sorted(set(settings) - {"boundaries", "scheduler_settings"})
    if unknown or len(settings) != 2:
        raise ConfigError(
            f"{where}.settings: expected boundaries and scheduler_settings, found {sorted(settings)}"
        )
    boundaries, parts = list(settings["boundaries"]), settings["scheduler_settings"]
    if len(parts) != len(boundaries) + 1:
        raise ConfigError(
            f"{where}.settings: {len(boundaries)} boundaries part {len(boundaries) + 1} schedules, found {len(parts)}"
        )
    if boundaries != sorted(set(boundaries)):
        raise ConfigError(f"{where}.settings.boundaries: must rise, found {boundaries}")
    courses = [
        course(Schedule.model_validate(part), f"{where}.settings.scheduler_settings.{number}")
        if isinstance(part, Mapping)
        else constant(float(part))
        for number, part in enumerate(parts)
    ]
    return joined(boundaries, courses)


class StepSchedule:
    """Sets the rate of every group of `optimizer` to that of the step; fits `hpcreco.train.task.Schedule`."""

    def __init__(self, optimizer: Optimizer, rate: Course) -> None:
        self._optimizer, self._rate = optimizer, rate

    def before_step(self, step: int) -> None:
        """Set the rate of step `step`."""
        rate = self._rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def after_epoch(self, row: Mapping[str, Any]) -> None:
        """Nothing: the rate follows from the step."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: the rate follows from the step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def optimizer(
    parameters: Iterable[nn.Parameter], name: str, arguments: Mapping[str, Any], rate: float
) -> Optimizer:
    """The optimizer `name` with Keras' names of its arguments, and Keras' epsilon where none is given."""
    name = _OPTIMIZERS.get(name, name)
    given = {_ARGUMENTS.get(key, key): value for key, value in arguments.items() if value is not None}
    betas = (given.pop("beta_1", 0.9), given.pop("beta_2", 0.999))
    if betas != (0.9, 0.999):
        given["betas"] = betas
    if name in _WITH_EPSILON:
        given.setdefault("eps", _KERAS_EPSILON)
    return build_optimizer(parameters, name, {"lr": rate, **given})
