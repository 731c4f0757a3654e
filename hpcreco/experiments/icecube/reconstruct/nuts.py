"""The No-U-Turn Sampler: trajectories as long as they lead away from where they began.

Hoffman and Gelman, The No-U-Turn Sampler, JMLR 15 (2014), algorithm 6: doubling in both directions of time, a slice,
and dual averaging of the step while the chain burns in. Chains are sampled one after another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.icecube.reconstruct.walks import Target, Tuner, Walk, leap

_LARGEST_ERROR = 1000.0  # of the energy; beyond it a trajectory has gone astray
_DEEPEST = 8


@dataclass(frozen=True)
class _Point:
    """One point of a trajectory: z, momentum, gradient (1, k); loss."""

    z: np.ndarray
    momentum: np.ndarray
    gradient: np.ndarray
    loss: float

    @property
    def energy(self) -> float:
        return self.loss + 0.5 * float((self.momentum**2).sum())


@dataclass(frozen=True)
class _Tree:
    """Both ends of a stretch of trajectory, a point drawn from it, how many points could be drawn, may it go on?

    chance, points: sum of the acceptances and number of all points, for the step.
    """

    first: _Point
    last: _Point
    drawn: _Point
    count: int
    goes_on: bool
    chance: float
    points: int


def nuts(target: Target, z: np.ndarray, steps: int, burn_in: int, rng: np.random.Generator) -> Walk:
    """Chains from z (c, k); `accepted` is the mean acceptance along the trajectories."""
    chains = [_chain(target, start[None], steps, burn_in, rng) for start in z]
    return Walk(
        np.concatenate([chain.z for chain in chains], 1),
        np.concatenate([chain.loss for chain in chains], 1),
        float(np.mean([chain.accepted for chain in chains])),
    )


def _chain(target: Target, z: np.ndarray, steps: int, burn_in: int, rng: np.random.Generator) -> Walk:
    tuner, kept, losses, chances = Tuner(0.5, 0.8), [], [], []
    loss, gradient = target(z)
    here = _Point(z, np.zeros_like(z), gradient, float(loss[0]))
    for number in range(burn_in + steps):
        if number == burn_in:
            tuner.fix()
        here, chance = _next(target, here, tuner.step, rng)
        if number < burn_in:
            tuner.learn(chance)
        else:
            kept.append(here.z), losses.append([here.loss]), chances.append(chance)
    return Walk(np.array(kept), np.array(losses), float(np.mean(chances)))


def _next(target: Target, here: _Point, step: float, rng: np.random.Generator) -> tuple[_Point, float]:
    """The next point of a chain, and the mean acceptance of its trajectory."""
    start = _Point(here.z, rng.standard_normal(here.z.shape), here.gradient, here.loss)
    level = start.energy + rng.exponential()  # the slice: energies below count
    whole = _Tree(start, start, start, 1, True, 0.0, 0)
    for depth in range(_DEEPEST):
        forward = bool(rng.random() < 0.5)
        end = whole.last if forward else whole.first
        new = _grown(target, end, depth, step if forward else -step, level, start.energy, rng)
        if new.goes_on and rng.random() * whole.count < new.count:
            whole = _joined(whole, new, forward, drawn=new.drawn)
        else:
            whole = _joined(whole, new, forward, drawn=whole.drawn)
        if not whole.goes_on:
            break
    return whole.drawn, whole.chance / max(whole.points, 1)


def _grown(
    target: Target,
    end: _Point,
    depth: int,
    step: float,
    level: float,
    begun: float,
    rng: np.random.Generator,
) -> _Tree:
    """2^depth further points from `end`, backwards in time for a negative step."""
    if depth == 0:
        z, momentum, loss, gradient = leap(target, end.z, end.momentum, end.gradient, step)
        point = _Point(z, momentum, gradient, float(loss[0]))
        energy = point.energy if math.isfinite(point.energy) else math.inf
        chance = math.exp(min(0.0, begun - energy))
        return _Tree(point, point, point, int(energy <= level), energy < level + _LARGEST_ERROR, chance, 1)
    near = _grown(target, end, depth - 1, step, level, begun, rng)
    if not near.goes_on:
        return near
    forward = step > 0
    far = _grown(target, near.last if forward else near.first, depth - 1, step, level, begun, rng)
    chosen = far.drawn if rng.random() * max(near.count + far.count, 1) < far.count else near.drawn
    return _joined(near, far, forward, drawn=chosen)


def _joined(one: _Tree, other: _Tree, forward: bool, drawn: _Point) -> _Tree:
    """`other` comes after `one` in time, or before it."""
    first, last = (one.first, other.last) if forward else (other.first, one.last)
    along = last.z - first.z
    straight = float((along * first.momentum).sum()) >= 0 and float((along * last.momentum).sum()) >= 0
    return _Tree(
        first,
        last,
        drawn,
        one.count + other.count,
        one.goes_on and other.goes_on and straight,
        one.chance + other.chance,
        one.points + other.points,
    )
