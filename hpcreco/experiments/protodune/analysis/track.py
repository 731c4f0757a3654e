"""Follow one track through charged points: its path, range, end point, and charge per length.

Points far from all others are taken away (density clustering), then the path is walked from the topmost point of the
largest cluster, or from a given one: the direction is the principal axis of a window of the nearest points, the largest
window that is still straight, each step at least `step` long. Charge within `max_deviation` of a piece of the path is
that piece's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOWS = (100, 70, 50, 35, 25, 18, 12, 8, 5)
"""Numbers of points in a window, tried from the largest."""
STRAIGHT = 0.98
"""Share of a window's variance along its axis from which it counts as straight."""
VERTICAL = 1


@dataclass(frozen=True)
class Track:
    """A path of s pieces. Lengths are in the points' unit, charge in that of the charges.

    path:  (s + 1, 3) from the start to the end point
    residual_range: (s,) from each piece's middle to the end
    dqdx:  (s,) charge per length
    """

    path: np.ndarray
    residual_range: np.ndarray
    dqdx: np.ndarray

    @property
    def range(self) -> float:
        """Length of the path."""
        return float(_lengths(self.path).sum())

    @property
    def end(self) -> np.ndarray:
        """(3,) where the track ends."""
        return self.path[-1]


def fit(
    points: np.ndarray,
    charge: np.ndarray,
    step: float,
    max_deviation: float,
    start: np.ndarray | None = None,
    reach: float | None = None,
) -> Track | None:
    """Follow the track in points (N, 3) with charges (N,); None if no straight window of five points is found.

    `reach`: points farther apart than this are no neighbours, by default a few times their usual distance. `start`
    (3,): begin at the point nearest to it, in the cluster that holds that point.
    """
    kept = clustered(points, start, reach)
    if kept.sum() < WINDOWS[-1]:
        return None
    path = _walk(points[kept], step, max_deviation, start)
    if path is None or len(path) < 2:
        return None
    lengths = _lengths(path)
    remaining = lengths.sum() - np.cumsum(lengths) + lengths / 2
    return Track(path, remaining, charge_along(path, points, charge, max_deviation) / lengths)


def clustered(points: np.ndarray, start: np.ndarray | None = None, reach: float | None = None) -> np.ndarray:
    """Mask (N,) of the points of one dense cluster: the largest, or the one that `start` is nearest to."""
    from scipy.spatial import cKDTree
    from sklearn.cluster import DBSCAN

    if len(points) < WINDOWS[-1]:
        return np.zeros(len(points), bool)
    if reach is None:
        spacing = cKDTree(points).query(points, k=2)[0][:, 1]
        reach = 4 * float(np.quantile(spacing, 0.9))
    label = DBSCAN(eps=max(reach, 1e-9), min_samples=3).fit_predict(points)
    members = label >= 0
    if not members.any():
        return members
    if start is None:
        chosen = np.bincount(label[members]).argmax()
    else:
        inside = np.flatnonzero(members)
        chosen = label[inside[np.linalg.norm(points[inside] - start, axis=1).argmin()]]
    return label == chosen


def charge_along(
    path: np.ndarray, points: np.ndarray, charge: np.ndarray, max_deviation: float
) -> np.ndarray:
    """(s,) charge of points (N, 3) by the piece of a path (s + 1, 3) nearest to them, no farther off than allowed."""
    lengths = _lengths(path)
    direction = np.diff(path, axis=0) / lengths[:, None]
    best, piece = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
    for k, (origin, axis, length) in enumerate(zip(path[:-1], direction, lengths, strict=True)):
        away = points - origin
        along = np.clip(away @ axis, 0, length)
        distance = np.linalg.norm(away - along[:, None] * axis, axis=1)
        nearer = distance < best
        best[nearer], piece[nearer] = distance[nearer], k
    near = best <= max_deviation
    return np.bincount(piece[near], np.asarray(charge, np.float64)[near], minlength=len(lengths))


def _walk(
    points: np.ndarray, step: float, max_deviation: float, start: np.ndarray | None
) -> np.ndarray | None:
    """Path (s + 1, 3), None if even its first direction is not found."""
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    first = points[:, VERTICAL].argmax() if start is None else tree.query(start)[1]
    here, direction = points[first], None
    path, heads = [here], [here]
    limit = int(4 * np.linalg.norm(np.ptp(points, axis=0)) / step) + 10  # no track is that long
    while len(path) < limit:
        axis = _axis(tree, points, here)
        if axis is None:
            axis = direction
        if axis is None:
            return None
        towards = direction if direction is not None else points.mean(0) - here
        direction = axis if axis @ towards >= 0 else -axis
        following = _step(tree, points, here, direction, step, max_deviation)
        if following is None:
            break
        path.append(following)
        if min(np.linalg.norm(following - old) for old in heads) < step / 2:  # the walk has turned back
            path.pop()
            break
        heads.append(following)
        here = following
    end = _last(points, here, direction, step, max_deviation)
    if end is not None:
        path.append(end)
    return np.array(path)


def _axis(tree, points: np.ndarray, here: np.ndarray) -> np.ndarray | None:
    """Principal axis (3,) of the largest straight window about a place."""
    number = tree.query(here, k=min(WINDOWS[0], len(points)))[1]
    for size in WINDOWS:
        window = points[number[:size]]
        if len(window) < WINDOWS[-1]:
            return None
        _, values, axes = np.linalg.svd(window - window.mean(0), full_matrices=False)
        variance = values**2
        if variance[0] >= STRAIGHT * variance.sum() > 0:
            return axes[0]
    return None


def _step(
    tree, points: np.ndarray, here: np.ndarray, direction: np.ndarray, step: float, max_deviation: float
) -> np.ndarray | None:
    """The next place: a step ahead, or as far as a gap of up to four steps asks, in the middle of the points there."""
    around = points[tree.query_ball_point(here, 5 * step + max_deviation)] - here
    ahead = around @ direction
    aside = np.linalg.norm(around - ahead[:, None] * direction, axis=1)
    for reach in (1.0, 2.0, 3.0, 4.0):
        inside = (np.abs(ahead - reach * step) <= step / 2) & (aside <= max_deviation)
        if not inside.any() or not ((ahead >= reach * step) & (aside <= max_deviation)).any():
            continue
        target = reach * step * direction
        middle = around[inside].mean(0)
        offset = middle - target
        return here + target + offset - (offset @ direction) * direction
    return None


def _last(
    points: np.ndarray, here: np.ndarray, direction: np.ndarray | None, step: float, max_deviation: float
) -> np.ndarray | None:
    """The farthest point ahead of the last full step."""
    if direction is None:
        return None
    ahead = (points - here) @ direction
    aside = np.linalg.norm(points - here - ahead[:, None] * direction, axis=1)
    inside = (ahead > 0) & (ahead < 1.5 * step) & (aside <= max_deviation)
    if not inside.any() or ahead[inside].max() < 1e-6 * step:
        return None
    return here + ahead[inside].max() * direction


def _lengths(path: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(path, axis=0), axis=1)
