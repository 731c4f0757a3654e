"""What a minimiser sees: losses of many events as a function of each event's own coordinates."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation

#: parameters (n, p), data of n events -> loss (n,) of each event, differentiable
Likelihood = Callable[[Tensor, Observation], Tensor]

_LOG = logging.getLogger(__name__)
#: why second derivatives were taken by differences of gradients -> how many times since the program began
by_differences: Counter[str] = Counter()


class Objective:
    """Loss and derivatives of n events at coordinates (n, k).

    Events do not influence each other, so one backward pass of the summed loss gives every event's gradient. Where
    the likelihood raises or is not finite, the loss counts as infinite and the gradient as 0.
    """

    def __init__(self, likelihood: Likelihood, data: Observation, space: Space, anchor: Tensor) -> None:
        self.likelihood, self.data, self.space = likelihood, data, space
        #: (n, p) parameters of the start, from which fixed ones are taken
        self.anchor = anchor

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.anchor)

    def take(self, events: Tensor) -> Objective:
        """The same for the events with these numbers."""
        return Objective(self.likelihood, take(self.data, events), self.space, self.anchor[events])

    def parameters(self, coordinates: Tensor) -> Tensor:
        """(n, p) physical parameters."""
        return self.space.parameters(coordinates, self.anchor)

    def raw(self, coordinates: Tensor) -> Tensor:
        """(n,) loss with penalties, differentiable, as it comes: may be non-finite, may raise."""
        parameters = self.parameters(coordinates)
        return self.likelihood(parameters, self.data) + self.space.penalty(parameters)

    def loss(self, coordinates: Tensor) -> Tensor:
        """(n,) loss, infinite where it cannot be computed."""
        with torch.no_grad():
            return _each(self, coordinates, lambda objective, y: (objective.raw(y),))[0]

    def __call__(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) loss and (n, k) gradient."""
        loss, gradient = _each(self, coordinates, _loss_and_gradient)
        bad = ~torch.isfinite(gradient).all(1)
        loss[bad] = torch.inf
        gradient[~torch.isfinite(loss)] = 0.0
        return loss, gradient

    def hessian(self, coordinates: Tensor) -> Tensor:
        """(n, k, k) second derivatives; NaN where they cannot be computed.

        By double differentiation, or, for sources that can be differentiated only once, by central differences of
        the gradient; why is logged once and counted in `by_differences`.
        """
        try:
            return _by_differentiation(self, coordinates)
        except (RuntimeError, NotImplementedError) as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            if not by_differences[reason]:
                _LOG.warning("second derivatives come from differences of the gradient, for %s", reason)
            by_differences[reason] += 1
        return self.hessian_by_differences(coordinates)

    def hessian_by_differences(self, coordinates: Tensor) -> Tensor:
        """(n, k, k) second derivatives from differences of gradients, with steps of eps^(1/3)."""
        step = torch.finfo(coordinates.dtype).eps ** (1 / 3)
        rows = []
        for column in range(coordinates.shape[1]):
            shift = torch.zeros_like(coordinates)
            shift[:, column] = step
            rows.append((self(coordinates + shift)[1] - self(coordinates - shift)[1]) / (2 * step))
        hessian = torch.stack(rows, 1)
        return (hessian + hessian.transpose(1, 2)) / 2


def _loss_and_gradient(objective: Objective, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        y = coordinates.detach().requires_grad_(True)
        loss = objective.raw(y)
        (gradient,) = torch.autograd.grad(loss.sum(), y)
    return loss.detach(), gradient


def _by_differentiation(objective: Objective, coordinates: Tensor) -> Tensor:
    with torch.enable_grad():
        y = coordinates.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective.raw(y).sum(), y, create_graph=True)
        last = y.shape[1] - 1
        rows = [
            torch.autograd.grad(gradient[:, column].sum(), y, retain_graph=column < last)[0]
            for column in range(y.shape[1])
        ]
    hessian = torch.stack(rows, 1).detach()
    return (hessian + hessian.transpose(1, 2)) / 2


def _each(
    objective: Objective, coordinates: Tensor, work: Callable[[Objective, Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """`work` on all events at once; when that raises, one by one, so that only the guilty ones are lost."""
    try:
        results = work(objective, coordinates)
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        if objective.n_events == 1:
            return (coordinates.new_full((1,), torch.inf), torch.zeros_like(coordinates))
        events = torch.arange(objective.n_events, device=coordinates.device)
        parts = [
            _each(objective.take(event[None]), coordinates[event][None], work) for event in events.unbind()
        ]
        width = min(map(len, parts))
        results = tuple(torch.cat([part[k] for part in parts]) for k in range(width))
    loss = torch.where(torch.isfinite(results[0]), results[0], torch.inf)
    return (loss, *results[1:])
