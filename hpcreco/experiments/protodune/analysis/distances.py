"""How far wrong voxels lie from what they were taken for.

A false negative is a true candidate that the network calls ghost; its distance to the nearest ghost candidate says
whether it sits at a boundary. A false positive is a ghost called true; its distance is to the nearest true cell. Both
are in cells, between centres. Nothing is decided at a threshold here: histograms are two-dimensional, score by
distance, so that every threshold can be looked at afterwards.
"""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.protodune.analysis.curve import N_BINS, THRESHOLDS

EDGES = np.concatenate([np.arange(0, 10, 0.5), np.arange(10, 50, 2.5), np.arange(50, 201, 25)])
"""(D,) cells; the last bin holds all beyond the last edge."""
NEAR = 2.0
"""Cells: errors nearer than this are errors of a boundary, not of a track."""


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance (N,) from points (N, 3) to the nearest of `others` (M, 3); infinite if there is none."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return cKDTree(others).query(points)[0]


def by_score(scores: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """int64 (51, D): voxels by number of score thresholds passed, and by distance (bin k from EDGES[k] on)."""
    score = np.searchsorted(THRESHOLDS, np.asarray(scores, np.float64), side="left")
    place = np.searchsorted(EDGES, distances, side="right") - 1
    flat = np.bincount(score * len(EDGES) + place, minlength=N_BINS * len(EDGES))
    return flat.reshape(N_BINS, len(EDGES))


def of_event(
    coords: np.ndarray, scores: np.ndarray, is_true: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Histograms (51, D) of true candidates' distances to ghosts, and of ghosts' to true cells `truth` (M, 3)."""
    ghosts = coords[~is_true]
    to_ghost = by_score(scores[is_true], nearest(coords[is_true], ghosts))
    return to_ghost, by_score(scores[~is_true], nearest(ghosts, truth))


def called_ghost(histogram: np.ndarray, index: int) -> np.ndarray:
    """(D,) distances of voxels whose score does not exceed threshold number `index`."""
    return histogram[: index + 1].sum(0)


def called_true(histogram: np.ndarray, index: int) -> np.ndarray:
    """(D,) distances of voxels whose score exceeds threshold number `index`."""
    return histogram[index + 1 :].sum(0)


def share_near(counts: np.ndarray, limit: float = NEAR) -> float:
    """Share of distances (D,) below `limit`, one of the edges; NaN without any."""
    total = counts.sum()
    return float(counts[limit > EDGES].sum() / total) if total else float("nan")
