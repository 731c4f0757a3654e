"""Quasi-Newton minimisation of many events at once.

Every event is in its own state: where it is, along which direction it searches and how far. Each round evaluates loss
and gradient of all events that are still at work, at the point each of them wants to try, in one call; an event whose
point is good enough takes the step and chooses its next direction, another one shortens or lengthens its step. Nobody
waits for anybody, and the events that are done leave the batch.

The line search halves and doubles until a point fulfils the weak Wolfe conditions (Lewis and Overton, Nonsmooth
optimization via quasi-Newton methods, Math. Program. 141, 2013), with interpolated instead of halved steps. Only points
below the start are ever taken.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.metric import METRICS, Dense, Metric
from hpcreco.experiments.icecube.reconstruct.objective import Objective


@dataclass(frozen=True)
class Minimiser:
    """How to minimise in a batch.

    tolerance: a fit is done when the loss expected to be left to gain (half of gradient, inverse Hessian, gradient)
    is below it. gradient_tolerance: or when no component of the gradient is larger. first_step, largest_step: in
    coordinates.
    """

    method: str = "bfgs"
    tolerance: float = 1e-5
    gradient_tolerance: float = 1e-5
    max_evaluations: int = 500
    max_trials: int = 25
    first_step: float = 0.1
    largest_step: float = 2.0
    decrease: float = 1e-4
    curvature: float = 0.9


@dataclass(frozen=True)
class Minimum:
    """Where minimisers ended: coordinates (n, k), loss (n,), converged (n,) bool, evaluations (n,) int64.

    inverse_hessian: (n, k, k) as the minimiser learnt it, where it keeps one.
    """

    coordinates: Tensor
    loss: Tensor
    converged: Tensor
    evaluations: Tensor
    inverse_hessian: Tensor | None = None


@dataclass
class _State:
    """One row per event: the best point, the direction, and the search along it."""

    place: Tensor  # (n, k)
    loss: Tensor
    gradient: Tensor  # (n, k)
    direction: Tensor  # (n, k)
    slope: Tensor  # along the direction, at `place`
    length: Tensor  # of the step to try
    low: Tensor  # the longest step known to go down enough but not far enough
    high: Tensor  # the shortest one known to be too long
    low_loss: Tensor
    high_loss: Tensor
    low_slope: Tensor
    low_gradient: Tensor  # (n, k)
    trials: Tensor
    evaluations: Tensor
    reset: Tensor  # bool: the last search failed and the metric was forgotten since

    def take(self, events: Tensor) -> _State:
        return _State(*(getattr(self, field.name)[events] for field in fields(self)))


def minimise(objective: Objective, start: Tensor, settings: Minimiser | None = None) -> Minimum:
    """Minimise the loss of every event from `start` (n, k). An event with an infinite loss there stays there."""
    settings = settings or Minimiser()
    loss, gradient = objective(start)
    metric: Metric = METRICS[settings.method].fresh(gradient)
    state = _started(start, loss, gradient)
    _aim(state, metric, torch.ones_like(state.reset), settings)
    n = len(start)
    ended = _Ended(
        start.clone(), loss.clone(), torch.zeros(n, dtype=torch.bool), state.evaluations.clone(), None
    )
    if isinstance(metric, Dense):
        ended.inverse_hessian = metric.matrix.clone()
    events = torch.arange(n, device=start.device)
    done = ~torch.isfinite(loss) | (gradient.abs().amax(1) <= settings.gradient_tolerance)
    converged = done & torch.isfinite(loss)
    while True:
        if done.any():
            ended.put(events[done], state.take(done), metric.take(done), converged[done])
            keep = ~done
            if not keep.any():
                return ended.minimum()
            events, state, metric = events[keep], state.take(keep), metric.take(keep)
            objective = objective.take(torch.nonzero(keep)[:, 0])
        done, converged = _round(objective, state, metric, settings)


@dataclass
class _Ended:
    place: Tensor
    loss: Tensor
    converged: Tensor
    evaluations: Tensor
    inverse_hessian: Tensor | None

    def put(self, events: Tensor, state: _State, metric: Metric, converged: Tensor) -> None:
        self.place[events], self.loss[events] = state.place, state.loss
        self.converged[events.cpu()] = converged.cpu()
        self.evaluations[events] = state.evaluations
        if self.inverse_hessian is not None and isinstance(metric, Dense):
            self.inverse_hessian[events] = metric.matrix

    def minimum(self) -> Minimum:
        return Minimum(
            self.place,
            self.loss,
            self.converged.to(self.place.device),
            self.evaluations,
            self.inverse_hessian,
        )


def _started(place: Tensor, loss: Tensor, gradient: Tensor) -> _State:
    zero = torch.zeros_like(loss)
    count = torch.zeros(len(loss), dtype=torch.int64, device=loss.device)
    search = dict.fromkeys(("slope", "length", "low", "high", "low_loss", "high_loss", "low_slope"), zero)
    return _State(
        place=place,
        loss=loss,
        gradient=gradient,
        direction=gradient,
        low_gradient=gradient,
        trials=count,
        evaluations=count + 1,
        reset=count > 0,
        **search,
    )


def _aim(state: _State, metric: Metric, which: Tensor, settings: Minimiser) -> None:
    """New directions for the events `which`, and the first step to try along them."""
    direction = -metric.times(state.gradient)
    slope = (direction * state.gradient).sum(1)
    uphill = which & ~(slope < 0)  # rounding has spoilt the metric: steepest descent again
    if uphill.any():
        metric.forget(uphill)
        direction = torch.where(uphill[:, None], -state.gradient, direction)
        slope = torch.where(uphill, -(state.gradient**2).sum(1), slope)
    longest = direction.abs().amax(1).clamp_min(1e-300)
    limit = torch.where(metric.learnt == 0, settings.first_step, settings.largest_step).to(slope)
    length = torch.where(metric.learnt == 0, limit / longest, (limit / longest).clamp_max(1.0))
    _assign(state, which, direction=direction, slope=slope, length=length)
    zero = torch.zeros_like(slope)
    endless = torch.full_like(zero, torch.inf)
    _assign(state, which, low=zero, high=endless, low_loss=state.loss, high_loss=endless)
    _assign(state, which, low_slope=slope, low_gradient=state.gradient, trials=torch.zeros_like(state.trials))


def _assign(state: _State, which: Tensor, **values: Tensor) -> None:
    for name, value in values.items():
        mask = which if value.dim() == 1 else which[:, None]
        setattr(state, name, torch.where(mask, value, getattr(state, name)))


def _round(objective: Objective, state: _State, metric: Metric, settings: Minimiser) -> tuple[Tensor, Tensor]:
    """One evaluation of every event; which are done, and which of these have converged."""
    trial = state.place + state.length[:, None] * state.direction
    loss, gradient = objective(trial)
    state.evaluations = state.evaluations + 1
    state.trials = state.trials + 1
    slope = (gradient * state.direction).sum(1)
    # what is left to gain may be less than rounding can show: a change within it counts as none
    noise = 4 * torch.finfo(state.loss.dtype).eps * state.loss.abs()
    down = loss <= state.loss + settings.decrease * state.length * state.slope
    down = down | ((loss <= state.loss) & (state.length * -state.slope <= noise))
    far = slope >= settings.curvature * state.slope
    accepted = down & far
    _narrow(state, loss, slope, gradient, down, accepted)
    exhausted = ~accepted & _exhausted(state, settings)
    rescued = exhausted & (state.low > 0)  # an improvement was seen: take that
    step = torch.where(accepted, state.length, state.low)
    gained = torch.where(rescued[:, None], state.low_gradient, gradient)
    moved = accepted | rescued
    metric.learn(step[:, None] * state.direction, gained - state.gradient, moved)
    _assign(
        state,
        moved,
        place=state.place + step[:, None] * state.direction,
        loss=torch.where(rescued, state.low_loss, loss),
        gradient=gained,
    )
    stuck = exhausted & ~rescued
    converged = moved & _settled(state, metric, settings)
    failed = stuck & (state.reset | (metric.learnt == 0))
    # nothing below the present point was found: converged if nothing was to be expected, within rounding
    converged = converged | (
        failed & (_left(state, metric) <= torch.clamp(10 * noise, min=settings.tolerance))
    )
    again = stuck & ~failed
    metric.forget(again)
    state.reset = torch.where(moved, False, state.reset | again)
    done = converged | failed | (state.evaluations >= settings.max_evaluations)
    _aim(state, metric, (moved | again) & ~done, settings)
    _assign(state, ~(moved | again) & ~done, length=_next_length(state))
    return done, converged


def _narrow(
    state: _State, loss: Tensor, slope: Tensor, gradient: Tensor, down: Tensor, accepted: Tensor
) -> None:
    """Shrink the interval of step lengths by what the trial has shown."""
    better = down & ~accepted
    _assign(state, better, low=state.length, low_loss=loss, low_slope=slope, low_gradient=gradient)
    _assign(state, ~down, high=state.length, high_loss=loss)


def _next_length(state: _State) -> Tensor:
    """The minimum of the parabola through what is known, kept away from the ends of the interval."""
    width = state.high - state.low
    bend = state.high_loss - state.low_loss - state.low_slope * width
    best = -state.low_slope * width**2 / (2 * bend)
    fraction = torch.nan_to_num(best / width, nan=0.5, posinf=0.9, neginf=0.1).clamp(0.1, 0.9)
    fraction = torch.where(torch.isfinite(state.high_loss), fraction, 0.2)
    inside = state.low + fraction * width
    return torch.where(torch.isinf(state.high), 4 * state.length, inside)


def _exhausted(state: _State, settings: Minimiser) -> Tensor:
    narrow = (state.high - state.low) * state.direction.abs().amax(1)
    finest = torch.finfo(state.place.dtype).eps * state.place.abs().amax(1).clamp_min(1.0)
    return (state.trials >= settings.max_trials) | (narrow <= finest)


def _left(state: _State, metric: Metric) -> Tensor:
    """(n,) loss left to gain, if the metric is right."""
    return (state.gradient * metric.times(state.gradient)).sum(1) / 2


def _settled(state: _State, metric: Metric, settings: Minimiser) -> Tensor:
    known = metric.learnt >= min(state.place.shape[1], 5)
    small = state.gradient.abs().amax(1) <= settings.gradient_tolerance
    return small | (known & (_left(state, metric) <= settings.tolerance))
