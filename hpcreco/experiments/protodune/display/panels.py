"""Which pictures of an event there are: the voxels of each, what colours them, and their scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import (
    Colormap,
    LinearSegmentedColormap,
    ListedColormap,
    LogNorm,
    Normalize,
    SymLogNorm,
)

from hpcreco.experiments.protodune.display.scene import FAINT, Scene

CLASSES = (
    ("true, called true", "#0072B2"),
    ("ghost, called true", "#E69F00"),
    ("true, called ghost", "#000000"),
    ("true, no candidate", "#CC79A7"),
)
"""Names and colours, which also those tell apart who see no red or no green (Okabe and Ito)."""


@dataclass(frozen=True)
class Panel:
    """One picture: points (n, 3), what colours them (n,), how; `classes` are ranks k + 0.5 that may not be averaged."""

    title: str
    points: np.ndarray
    values: np.ndarray
    cmap: Colormap
    norm: Normalize
    label: str = ""
    legend: tuple[tuple[str, str], ...] = ()

    @property
    def classes(self) -> bool:
        """Whether values are classes, not amounts."""
        return bool(self.legend)


def panels(scene: Scene, threshold: float) -> list[Panel]:
    """The pictures that the scene has data for."""
    found: list[Panel] = []
    norm = charge_norm([scene])
    if scene.has_truth:
        found.append(true_charge(scene, norm))
    if len(scene.candidates) and scene.charge is not scene.predicted:
        own = charge_norm_of(scene.charge)
        found.append(_by_charge("candidates", scene.candidates, scene.charge, own, scene.charge_unit))
    if scene.scores is not None:
        found.append(by_score(scene, threshold))
    if scene.predicted is not None:
        found.append(predicted_charge(scene, norm))
    if scene.judges and scene.is_true is not None:
        found.append(difference(scene, threshold))
    if scene.predicted is not None and scene.is_true is not None and scene.truth_unit == scene.charge_unit:
        found.append(charge_error(scene))
    return found


def sequential() -> Colormap:
    """Viridis from light to dark, without the yellow that vanishes on white."""
    return ListedColormap(colormaps["viridis_r"](np.linspace(0.12, 1, 256)), "viridis_on_white")


def charge_norm(scenes: Sequence[Scene]) -> Normalize:
    """One scale for true and predicted charge: of the truth if there is some, else of what is predicted."""
    true = [scene.truth[1] for scene in scenes if scene.has_truth]
    predicted = [scene.predicted[scene.predicted > FAINT] for scene in scenes if scene.predicted is not None]
    return charge_norm_of(np.concatenate(true or predicted or [np.zeros(0)]))


def charge_norm_of(charge: np.ndarray) -> Normalize:
    """Logarithmic from 2 % to 99.5 % of the positive values."""
    positive = charge[charge > 0]
    low, high = np.quantile(positive, [0.02, 0.995]) if len(positive) else (1, 10)
    return LogNorm(low, max(high, low * 1.01), clip=True)


def _by_charge(name: str, points: np.ndarray, charge: np.ndarray, norm: Normalize, unit: str) -> Panel:
    quantity = "energy" if unit.startswith("MeV") else "charge"
    label = f"{quantity} [{unit or 'unknown unit'}]"
    title = f"{name}: {len(points):,} voxels"
    return Panel(title, points, np.maximum(charge, norm.vmin or 0), sequential(), norm, label)


def true_charge(scene: Scene, norm: Normalize) -> Panel:
    """All of the truth, candidates or not."""
    return _by_charge("truth", *scene.truth, norm, scene.truth_unit)


def by_score(scene: Scene, threshold: float) -> Panel:
    """Candidates with a score above `threshold`."""
    assert scene.scores is not None
    called = scene.called(threshold)
    title = f"prediction, score > {threshold:.2f}: {called.sum():,} voxels"
    norm = Normalize(threshold, 1)
    return Panel(title, scene.candidates[called], scene.scores[called], sequential(), norm, "score")


def predicted_charge(scene: Scene, norm: Normalize) -> Panel:
    """Candidates with more than FAINT electrons predicted."""
    assert scene.predicted is not None
    shown = scene.predicted > FAINT
    name = f"predicted charge > {FAINT:g} e"
    return _by_charge(name, scene.candidates[shown], scene.predicted[shown], norm, "e")


def difference(scene: Scene, threshold: float) -> Panel:
    """True and false positives, false negatives and what tiling lost, in four colours with their counts."""
    assert scene.is_true is not None
    called, true = scene.called(threshold), scene.is_true
    groups = [called & true, called & ~true, ~called & true]
    points = [scene.candidates[g] for g in groups] + [scene.missed]
    values = np.concatenate([np.full(len(p), k + 0.5) for k, p in enumerate(points)])
    classes = (*CLASSES[:3], ("true, not found", CLASSES[3][1])) if scene.found_only else CLASSES
    legend = tuple((f"{name}: {len(p):,}", colour) for (name, colour), p in zip(classes, points, strict=True))
    cmap = ListedColormap([colour for _, colour in CLASSES])
    n_right, n_called, n_true = int(groups[0].sum()), int(called.sum()), int(true.sum())
    n_true += len(scene.missed) if scene.found_only else 0
    purity, efficiency = (n_right / n if n else 1.0 for n in (n_called, n_true))
    title = f"difference: purity {purity:.3f}, efficiency {efficiency:.3f}"
    return Panel(title, np.concatenate(points), values, cmap, Normalize(0, len(CLASSES)), legend=legend)


def charge_error(scene: Scene) -> Panel:
    """Predicted minus true electrons, of voxels where either is more than FAINT; truth without candidate counts."""
    assert scene.predicted is not None
    assert scene.true_charge is not None
    either = (scene.predicted > FAINT) | (scene.true_charge > FAINT)
    error = scene.predicted[either].astype(float) - scene.true_charge[either]
    points = np.concatenate([scene.candidates[either], scene.missed])
    values = np.concatenate([error, -scene.missed_charge.astype(float)])
    true = float(scene.truth[1].sum(dtype=float))
    predicted = float(scene.predicted[scene.predicted > FAINT].sum(dtype=float))
    ratio = f"\n{predicted / true:.3f} of the truth ({predicted:.4g} of {true:.4g} e)" if true else ""
    title = f"predicted - true charge{ratio}"
    most = max(float(np.quantile(np.abs(values), 0.995)) if len(values) else 0.0, 2 * FAINT)
    norm = SymLogNorm(FAINT, vmin=-most, vmax=most, clip=True)
    cmap = LinearSegmentedColormap.from_list(
        "errors", ["#004A80", "#56B4E9", "#C9CED6", "#E69F00", "#A03A00"]
    )
    return Panel(title, points, values, cmap, norm, "predicted - true [e]")
