"""Inverse Hessians of many events as quasi-Newton minimisers learn them: whole matrices, or the last few steps.

Formulas: Nocedal and Wright, Numerical Optimization, 2nd edition: BFGS (6.17), its first scaling (6.20), the
two-loop recursion of L-BFGS (algorithm 7.4).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Metric(Protocol):
    """An approximate inverse Hessian per event."""

    def times(self, gradient: Tensor) -> Tensor:
        """(n, k) inverse Hessian times gradient."""

    def learn(self, step: Tensor, change: Tensor, which: Tensor) -> None:
        """Take in steps (n, k) and changes of the gradient (n, k) of the events `which` (n,) bool."""

    def forget(self, which: Tensor) -> None:
        """Start again for the events `which` (n,) bool."""

    def take(self, events: Tensor) -> Metric:
        """The same for the events with these numbers."""

    @property
    def learnt(self) -> Tensor:
        """(n,) how many steps have been taken in."""


class Dense:
    """The whole matrix: BFGS, for up to about a hundred coordinates."""

    def __init__(self, matrix: Tensor, learnt: Tensor) -> None:
        self.matrix, self.learnt = matrix, learnt

    @classmethod
    def fresh(cls, gradient: Tensor) -> Dense:
        """The unit matrix for every event."""
        n, k = gradient.shape
        unit = torch.eye(k, dtype=gradient.dtype, device=gradient.device).repeat(n, 1, 1)
        return cls(unit, torch.zeros(n, dtype=torch.int64, device=gradient.device))

    def times(self, gradient: Tensor) -> Tensor:
        return (self.matrix @ gradient[:, :, None])[:, :, 0]

    def learn(self, step: Tensor, change: Tensor, which: Tensor) -> None:
        product = (step * change).sum(1)
        which = which & _curved(step, change)
        scale = product / (change * change).sum(1)
        first = which & (self.learnt == 0)
        self.matrix = torch.where(first[:, None, None], self.matrix * scale[:, None, None], self.matrix)
        rho = 1.0 / product[:, None, None]
        towards = self.times(change)
        outer = step[:, :, None] * towards[:, None, :]
        whole = 1.0 + rho * (change * towards).sum(1)[:, None, None]
        updated = (
            self.matrix
            - rho * (outer + outer.transpose(1, 2))
            + rho * whole * step[:, :, None] * step[:, None, :]
        )
        self.matrix = torch.where(which[:, None, None], updated, self.matrix)
        self.learnt = self.learnt + which

    def forget(self, which: Tensor) -> None:
        unit = torch.eye(self.matrix.shape[1], dtype=self.matrix.dtype, device=self.matrix.device)
        self.matrix = torch.where(which[:, None, None], unit, self.matrix)
        self.learnt = torch.where(which, 0, self.learnt)

    def take(self, events: Tensor) -> Dense:
        return Dense(self.matrix[events], self.learnt[events])


class Limited:
    """The last few steps: L-BFGS, for hypotheses with hundreds of coordinates."""

    memory = 10

    def __init__(self, steps: Tensor, changes: Tensor, learnt: Tensor) -> None:
        self.steps, self.changes, self.learnt = steps, changes, learnt  # (memory, n, k), the latest last

    @classmethod
    def fresh(cls, gradient: Tensor) -> Limited:
        """Nothing known of any event."""
        empty = gradient.new_zeros((cls.memory, *gradient.shape))
        learnt = torch.zeros(len(gradient), dtype=torch.int64, device=gradient.device)
        return cls(empty, empty.clone(), learnt)

    def times(self, gradient: Tensor) -> Tensor:
        product = (self.steps * self.changes).sum(2)
        rho = torch.where(product > 0, 1.0 / product, 0.0)  # an empty place changes nothing
        result, weights = gradient, []
        for place in reversed(range(self.memory)):
            weight = rho[place] * (self.steps[place] * result).sum(1)
            result = result - weight[:, None] * self.changes[place]
            weights.append(weight)
        last = product[-1] / (self.changes[-1] ** 2).sum(1)
        result = result * torch.where(self.learnt > 0, last, 1.0)[:, None]
        for place in range(self.memory):
            weight = rho[place] * (self.changes[place] * result).sum(1)
            result = result + (weights[self.memory - 1 - place] - weight)[:, None] * self.steps[place]
        return result

    def learn(self, step: Tensor, change: Tensor, which: Tensor) -> None:
        which = which & _curved(step, change)
        for name, new in (("steps", step), ("changes", change)):
            old = getattr(self, name)
            moved = torch.cat([old[1:], new[None]])
            setattr(self, name, torch.where(which[None, :, None], moved, old))
        self.learnt = self.learnt + which

    def forget(self, which: Tensor) -> None:
        keep = ~which[None, :, None]
        self.steps, self.changes = self.steps * keep, self.changes * keep
        self.learnt = torch.where(which, 0, self.learnt)

    def take(self, events: Tensor) -> Limited:
        return Limited(self.steps[:, events], self.changes[:, events], self.learnt[events])


def _curved(step: Tensor, change: Tensor) -> Tensor:
    """(n,) bool: does the step tell a positive curvature, beyond rounding?"""
    product = (step * change).sum(1)
    return product > 1e-10 * step.norm(dim=1) * change.norm(dim=1)


METRICS = {"bfgs": Dense, "lbfgs": Limited}
