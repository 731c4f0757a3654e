"""Minimisers without gradients that know that directions live on a sphere.

Both move points of a population through, or away from, the middle of others. For numbers that is a straight line; for a
direction it is the great circle through both, so that neither a pole nor the ends of the azimuth are in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct.angles import angles, unit
from hpcreco.experiments.icecube.reconstruct.batched import Minimum
from hpcreco.experiments.icecube.reconstruct.objective import Objective
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space, directions


@dataclass(frozen=True)
class SphericalMinimiser:
    """crs2: controlled random search, for many minima; nelder-mead: a simplex, from near the minimum.

    population: of crs2 (0: 10 (k + 1)). width: of the first points around the start, in coordinates. tolerance: done
    when the points' losses differ by less. batch: trials of crs2 evaluated together.
    """

    method: str = "crs2"
    population: int = 0
    width: float = 0.3
    tolerance: float = 1e-3
    max_evaluations: int = 20_000
    batch: int = 16
    seed: int = 0


class Points:
    """Places of one event: coordinates that are numbers as they are, free directions as unit vectors, in one row."""

    def __init__(self, space: Space, anchor: Tensor) -> None:
        self._space, self._anchor = space, anchor
        self._pairs = [pair for pair in directions(space.names) if set(pair) <= set(space.free)]
        angular = {space.free.index(number) for pair in self._pairs for number in pair}
        self._plain = [k for k in range(space.n_free) if k not in angular]

    def rows(self, y: Tensor) -> np.ndarray:
        """(n, k) coordinates -> (n, plain + 3 per direction)."""
        parameters = self._space.parameters(y, self._anchor.repeat(len(y), 1))
        vectors = [unit(parameters[:, a], parameters[:, b]) for a, b in self._pairs]
        return torch.cat([y[:, self._plain], *vectors], 1).cpu().double().numpy()

    def coordinates(self, rows: np.ndarray) -> Tensor:
        """The inverse of `rows`."""
        given = torch.as_tensor(rows).to(self._anchor)
        parameters = self._anchor.repeat(len(given), 1)
        for number, pair in enumerate(self._pairs):
            first = len(self._plain) + 3 * number
            for column, value in zip(pair, angles(given[:, first : first + 3]), strict=True):
                parameters[:, column] = value
        y = self._space.coordinates(parameters)
        y[:, self._plain] = given[:, : len(self._plain)]
        return y

    def middle(self, rows: np.ndarray) -> np.ndarray:
        """(r,) mean of rows (n, r), of directions the mean direction."""
        mean = rows.mean(0)
        for part in self._vectors():
            mean[part] /= max(float(np.linalg.norm(mean[part])), 1e-12)
        return mean

    def beyond(self, middle: np.ndarray, away: np.ndarray, factor: float) -> np.ndarray:
        """(r,) from `away` through `middle` and on by `factor` of their distance: 1 reflects, -1/2 halves the way."""
        moved = middle + factor * (middle - away)
        for part in self._vectors():
            c, w = middle[part], away[part]
            aside = w - (c @ w) * c
            size = float(np.linalg.norm(aside))
            turn = -factor * float(np.arctan2(size, c @ w))
            moved[part] = np.cos(turn) * c + (np.sin(turn) * aside / size if size > 1e-15 else 0.0)
        return moved

    def _vectors(self) -> list[slice]:
        first = len(self._plain)
        return [slice(first + 3 * n, first + 3 * n + 3) for n in range(len(self._pairs))]


class _Losses:
    """Loss of rows of one event, counted, the best kept."""

    def __init__(self, objective: Objective, points: Points) -> None:
        self.objective, self.points, self.evaluations = objective, points, 0
        self.best: tuple[float, np.ndarray] | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        event = torch.zeros(len(rows), dtype=torch.int64, device=self.objective.anchor.device)
        many = Objective(
            self.objective.likelihood,
            take(self.objective.data, event),
            self.objective.space,
            self.objective.anchor.repeat(len(rows), 1),
        )
        loss = many.loss(self.points.coordinates(rows)).cpu().double().numpy()
        self.evaluations += len(rows)
        lowest = int(loss.argmin())
        if self.best is None or loss[lowest] < self.best[0]:
            self.best = float(loss[lowest]), rows[lowest].copy()
        return loss


def minimise(objective: Objective, start: Tensor, settings: SphericalMinimiser | None = None) -> Minimum:
    """Minimise the loss of each event from `start` (n, k), one by one. Never ends above the start."""
    settings = settings or SphericalMinimiser()
    search = METHODS[settings.method]
    places, losses, converged, evaluations = [], [], [], []
    for event in range(objective.n_events):
        number = torch.tensor([event], device=start.device)
        one = objective.take(number)
        points = Points(one.space, one.anchor)
        function = _Losses(one, points)
        rng = np.random.default_rng([settings.seed, event])
        done = search(function, start[number], settings, rng)
        assert function.best is not None
        places.append(points.coordinates(function.best[1][None]))
        losses.append(function.best[0])
        converged.append(done and np.isfinite(function.best[0]))
        evaluations.append(function.evaluations)
    return Minimum(
        torch.cat(places),
        start.new_tensor(losses),
        torch.tensor(converged, device=start.device),
        torch.tensor(evaluations, device=start.device),
    )


def _crs2(function: _Losses, start: Tensor, settings: SphericalMinimiser, rng: np.random.Generator) -> bool:
    """Price's search with local mutation (Kaelo and Ali, J. Optim. Theory Appl. 130, 2006)."""
    k, points = start.shape[1], function.points
    count = settings.population or 10 * (k + 1)
    moved = start + settings.width * torch.as_tensor(rng.standard_normal((count, k))).to(start)
    moved[0] = start[0]
    rows = points.rows(moved)
    loss = function(rows)
    while function.evaluations < settings.max_evaluations:
        if np.ptp(loss) < settings.tolerance:
            return True
        best = int(loss.argmin())
        trials = np.empty((settings.batch, rows.shape[1]))
        for trial in trials:
            chosen = rng.choice(count, k + 1, replace=False)
            simplex = np.concatenate([rows[best][None], rows[chosen[:-1]]])
            trial[:] = points.beyond(points.middle(simplex), rows[chosen[-1]], 1.0)
        _improve(rows, loss, trials, function(trials))
        failed = function.best is not None and loss.min() >= function.best[0]
        if failed:
            best = int(loss.argmin())
            for trial in trials:
                trial[:] = points.beyond(rows[best], trial, rng.random())
            _improve(rows, loss, trials, function(trials))
    return False


def _improve(rows: np.ndarray, loss: np.ndarray, trials: np.ndarray, values: np.ndarray) -> None:
    """Trials take the places of the worst, as long as they are better."""
    for trial, value in zip(trials, values, strict=True):
        worst = int(loss.argmax())
        if value < loss[worst]:
            rows[worst], loss[worst] = trial, value


def _nelder_mead(
    function: _Losses, start: Tensor, settings: SphericalMinimiser, rng: np.random.Generator
) -> bool:
    """The simplex of Nelder and Mead (Computer Journal 7, 1965)."""
    del rng
    k, points = start.shape[1], function.points
    corners = start.repeat(k + 1, 1)
    corners[torch.arange(1, k + 1), torch.arange(k)] += settings.width
    rows = points.rows(corners)
    loss = function(rows)
    while function.evaluations < settings.max_evaluations:
        order = np.argsort(loss, kind="stable")
        rows, loss = rows[order], loss[order]
        if loss[-1] - loss[0] < settings.tolerance:
            return True
        middle = points.middle(rows[:-1])

        def tried(factor: float, middle: np.ndarray = middle, worst: np.ndarray = rows[-1]) -> tuple:
            row = points.beyond(middle, worst, factor)
            return row, float(function(row[None])[0])

        row, value = tried(1.0)
        if value < loss[0]:
            row, value = min((row, value), tried(2.0), key=lambda pair: pair[1])
        elif value >= loss[-2]:
            row, value = min((row, value), tried(0.5 if value < loss[-1] else -0.5), key=lambda pair: pair[1])
        if value < loss[-1]:
            rows[-1], loss[-1] = row, value
            continue
        for number in range(1, k + 1):  # nothing helped: towards the best
            rows[number] = points.beyond(rows[0], rows[number], -0.5)
        loss[1:] = function(rows[1:])
    return False


METHODS: dict[str, Callable[[_Losses, Tensor, SphericalMinimiser, np.random.Generator], bool]] = {
    "crs2": _crs2,
    "nelder-mead": _nelder_mead,
}
