"""One event after another with scipy's minimisers, as the original package does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.batched import Minimum
from hpcreco.experiments.icecube.reconstruct.objective import Objective

WITH_HESSIAN = ("newton-cg", "dogleg", "trust-ncg", "trust-krylov", "trust-exact", "trust-constr")
WITH_BOUNDS = ("l-bfgs-b", "tnc", "slsqp", "powell", "trust-constr", "nelder-mead", "cobyla", "cobyqa")
WITHOUT_GRADIENT = ("nelder-mead", "powell", "cobyla", "cobyqa")


@dataclass(frozen=True)
class ScipyMinimiser:
    """Keyword arguments of `scipy.optimize.minimize`: method and its options; "shgo" searches globally instead.

    shgo looks within `reach` coordinates around the start.
    """

    method: str = "BFGS"
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None
    reach: float = 1.0


def minimise(objective: Objective, start: Tensor, settings: ScipyMinimiser | None = None) -> Minimum:
    """Minimise the loss of each event from `start` (n, k), one by one. Never ends above the start."""
    settings = settings or ScipyMinimiser()
    results = []
    for event in range(objective.n_events):
        number = torch.tensor([event], device=start.device)
        results.append(_minimise_one(objective.take(number), start[number], settings))
    matrices = [result.inverse_hessian for result in results]
    return Minimum(
        coordinates=torch.cat([result.coordinates for result in results]),
        loss=torch.cat([result.loss for result in results]),
        converged=torch.cat([result.converged for result in results]),
        evaluations=torch.cat([result.evaluations for result in results]),
        inverse_hessian=None
        if any(m is None for m in matrices)
        else torch.cat([m for m in matrices if m is not None]),
    )


class _Remembering:
    """Loss and gradient as scipy wants them; keeps the best point, for a method may end elsewhere."""

    def __init__(self, objective: Objective, like: Tensor) -> None:
        self.objective, self.like = objective, like
        self.best, self.best_loss, self.evaluations = np.zeros(0), np.inf, 0

    def tensor(self, y: np.ndarray) -> Tensor:
        return torch.as_tensor(y, dtype=self.like.dtype, device=self.like.device)[None]

    def __call__(self, y: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = self.objective(self.tensor(y))
        return self._noted(y, float(loss)), gradient[0].cpu().double().numpy()

    def loss(self, y: np.ndarray) -> float:
        return self._noted(y, float(self.objective.loss(self.tensor(y))))

    def _noted(self, y: np.ndarray, loss: float) -> float:
        self.evaluations += 1
        if loss < self.best_loss or self.evaluations == 1:
            self.best, self.best_loss = np.array(y, copy=True), loss
        return loss

    def hessian(self, y: np.ndarray) -> np.ndarray:
        return self.objective.hessian(self.tensor(y))[0].cpu().double().numpy()


def _minimise_one(objective: Objective, start: Tensor, settings: ScipyMinimiser) -> Minimum:
    from scipy import optimize

    function = _Remembering(objective, start)
    y = start[0].cpu().double().numpy()
    function(y)
    method = settings.method.lower()
    box = np.stack([end[0].cpu().numpy() for end in objective.space.box(objective.anchor)], 1)
    if method == "shgo":
        near = np.stack([y - settings.reach, y + settings.reach], 1)
        bounds = np.stack([np.maximum(near[:, 0], box[:, 0]), np.minimum(near[:, 1], box[:, 1])], 1)
        result = optimize.shgo(function.loss, bounds.tolist(), options=dict(settings.options))
    else:
        free = method in WITHOUT_GRADIENT
        result = optimize.minimize(
            function.loss if free else function,
            y,
            jac=None if free else True,
            hess=function.hessian if method in WITH_HESSIAN else None,
            bounds=box.tolist() if method in WITH_BOUNDS and np.isfinite(box).any() else None,
            method=settings.method,
            tol=settings.tolerance,
            options=dict(settings.options),
        )
    learnt = getattr(result, "hess_inv", None)
    matrix = learnt.todense() if hasattr(learnt, "todense") else learnt
    best = function.tensor(function.best)
    return Minimum(
        coordinates=best,
        loss=start.new_tensor([function.best_loss]),
        # a line search that rounding stops at the minimum is reported as a failure by BFGS
        converged=torch.tensor([np.isfinite(function.best_loss) and (bool(result.success) or _flat(result))]),
        evaluations=torch.tensor([function.evaluations], device=start.device),
        inverse_hessian=None if matrix is None else torch.as_tensor(matrix).to(start)[None],
    )


def _flat(result: Any) -> bool:
    """Does the result's own inverse Hessian promise next to no further gain?"""
    matrix, gradient = getattr(result, "hess_inv", None), getattr(result, "jac", None)
    if matrix is None or gradient is None or not np.isfinite(gradient).all():
        return False
    return bool(gradient @ (matrix @ gradient) / 2 < 1e-4)
