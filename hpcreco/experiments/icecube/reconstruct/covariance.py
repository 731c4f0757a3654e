"""How uncertain fitted parameters are: from the curvature of the loss, from its gradients, and from both.

Matrices are over the free parameters, first in the coordinates of the fit, where they are well conditioned. With H the
second derivatives of the loss and J the sum over independent terms (pulses, charges of DOMs) of the outer product of
their gradients, both H^-1 and J^-1 are the covariance of a correct likelihood; the sandwich H^-1 J H^-1 is right also
where the likelihood is not (White, Maximum likelihood estimation of misspecified models, Econometrica 50, 1982).

J is an estimate from the event's own terms: few DOMs with light make it, and even more so its inverse, far off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.objective import Objective
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.sources.contract import Observation

#: parameters (n, p), data -> (R,) independent parts of the losses, e.g. one per pulse, and (R,) the event of each
Terms = Callable[[Tensor, Observation], tuple[Tensor, Tensor]]

_ROWS = 1 << 16  # terms whose outer products are in memory at once
SINGULAR = 1e-8  # eigenvalues below this fraction of the largest are left out of a pseudo-inverse


def covariances(
    objective: Objective, coordinates: Tensor, terms: Terms | None = None, learnt: Tensor | None = None
) -> dict[str, Tensor]:
    """(n, k, k) covariances in coordinates: `hessian`, and with `terms` also `opg` and `sandwich`.

    With `learnt`, the minimiser's inverse Hessian (n, k, k), also `fit` and `sandwich_fit`. NaN where the matrix
    cannot be inverted.
    """
    made = {"hessian": inverse(objective.hessian(coordinates))}
    if learnt is not None:
        made["fit"] = learnt
    if terms is not None:
        outer = outer_products(objective, coordinates, terms)
        made["opg"] = inverse(outer)
        made["sandwich"] = made["hessian"] @ outer @ made["hessian"]
        if learnt is not None:
            made["sandwich_fit"] = learnt @ outer @ learnt
    return made


def inverse(matrix: Tensor) -> Tensor:
    """(n, k, k) inverses of symmetric matrices; pseudo-inverses of singular ones, NaN where an entry is not finite."""
    result = torch.full_like(matrix, torch.nan)
    for event in torch.nonzero(torch.isfinite(matrix).all(2).all(1))[:, 0].tolist():
        values = torch.linalg.eigvalsh(matrix[event]).abs()
        if values.min() > SINGULAR * values.max():
            result[event] = torch.linalg.inv(matrix[event])
        else:
            result[event] = torch.linalg.pinv(matrix[event], rtol=SINGULAR, hermitian=True)
    return result


def outer_products(objective: Objective, coordinates: Tensor, terms: Terms) -> Tensor:
    """(n, k, k) sum over terms of the outer product of their gradients, which central differences give."""
    step = torch.finfo(coordinates.dtype).eps ** (1 / 3)
    n, k = coordinates.shape
    rows, event = [], None
    with torch.no_grad():
        for column in range(k):
            shift = torch.zeros_like(coordinates)
            shift[:, column] = step
            (up, event), (down, _) = (
                terms(objective.parameters(coordinates + sign * shift), objective.data) for sign in (1, -1)
            )
            rows.append((up - down) / (2 * step))
    outer = coordinates.new_zeros(n, k, k)
    if event is None:
        return outer
    gradients = torch.stack(rows, 1)
    for part, owner in zip(gradients.split(_ROWS), event.split(_ROWS), strict=True):
        outer.index_add_(0, owner, part[:, :, None] * part[:, None, :])
    return outer


def physical(covariance: Tensor, space: Space, parameters: Tensor, *, log_units: bool = False) -> Tensor:
    """A covariance (n, k, k) in coordinates as one of physical parameters, or of ln(1 + E) with `log_units`."""
    scale = space.derivative(parameters)
    if log_units:
        scale = scale * space.log_factor(parameters)
    return scale[:, :, None] * covariance * scale[:, None, :]


def angular_error(
    covariance: Tensor, space: Space, parameters: Tensor, directions: tuple[int, int]
) -> Tensor:
    """(n,) rad: sqrt((var zenith + var azimuth sin^2 zenith) / 2) of a physical covariance, 90 degrees at most."""
    zenith, azimuth = (space.free.index(i) for i in directions)
    sine = parameters[:, directions[0]].sin()
    variance = covariance[:, zenith, zenith] + covariance[:, azimuth, azimuth] * sine**2
    return (variance / 2).clamp_min(0).sqrt().clamp_max(torch.pi / 2)
