"""The pictures of a report. Colours by Okabe and Ito, told apart by colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS
from hpcreco.experiments.protodune.analysis.results import best_cut, working_index
from hpcreco.experiments.protodune.analysis.sample import Sample

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DPI = 110


def write_figures(
    folder: Path, samples: Sequence[Sample], threshold: float | None, training: Sequence[Mapping[str, float]]
) -> None:
    """scores.png and counts.png; with truth curve.png; with rows of a training summary training.png."""
    figures = {"scores.png": draw_scores(samples, threshold), "counts.png": draw_counts(samples, threshold)}
    if any(s.has_truth for s in samples):
        figures["curve.png"] = draw_curves([s for s in samples if s.has_truth], threshold)
    if training:
        figures["training.png"] = draw_training(training)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=DPI)


def draw_curves(samples: Sequence[Sample], threshold: float | None) -> Figure:
    """Purity against efficiency: the network, its working point, the break-even line, the best cut on a feature."""
    figure = Figure(figsize=(7, 7.3 + 0.85 * len(samples)), layout="constrained")
    axis = figure.add_subplot()
    axis.plot([0, 1], [0, 1], color="0.75", linewidth=1, zorder=0)
    axis.text(
        0.04, 0.055, "purity = efficiency", color="0.5", fontsize=9, rotation=45, rotation_mode="anchor"
    )
    for k, sample in enumerate(samples):
        _draw_curve(axis, sample, COLOURS[k % len(COLOURS)], working_index(sample, threshold))
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="efficiency", ylabel="purity")
    axis.set_box_aspect(1)
    axis.set_title("purity and efficiency of voxels called true, mean of events")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return figure


def _draw_curve(axis: Axes, sample: Sample, colour: str, index: int) -> None:
    curve, best = sample.mean(), best_cut(sample)
    # where nothing is called true the purity is 1 by convention: no point of the curve
    real = curve.efficiency > 0
    even = "" if np.isnan(curve.break_even) else f", break-even {curve.break_even:.3f}"
    label = f"{sample.name}: network, auc_pe {curve.auc_pe:.3f}{even}"
    axis.plot(curve.efficiency[real], curve.purity[real], ".-", color=colour, markersize=4, label=label)
    point = f"working point, score > {THRESHOLDS[index]:.2f}"
    axis.plot(
        curve.efficiency[index],
        curve.purity[index],
        "*",
        color=colour,
        markersize=17,
        markeredgecolor="k",
        label=point,
    )
    if best is not None:
        purity, efficiency = sample.scans[best].curve()
        real = efficiency > 0
        auc = sample.scans[best].result()[0]
        axis.plot(
            efficiency[real], purity[real], "--", color=colour, label=f"best cut, {best}: auc_pe {auc:.3f}"
        )
    counts = sample.counts()
    share = counts.true / max(counts.true + counts.ghost, 1)
    axis.axhline(
        share, color=colour, linestyle=":", linewidth=1.2, label=f"all candidates: purity {share:.3f}"
    )


def draw_scores(samples: Sequence[Sample], threshold: float | None) -> Figure:
    """Histograms of the scores of true voxels and of ghosts, or of all candidates, with the working threshold."""
    figure = Figure(figsize=(5.2 * max(len(samples), 1), 4.4), layout="constrained")
    edges = np.append(THRESHOLDS, 1.0)
    for k, sample in enumerate(samples):
        axis = figure.add_subplot(1, len(samples), k + 1)
        parts = {"true": (sample.true, COLOURS[0]), "ghost": (sample.ghost, COLOURS[5])}
        if not sample.has_truth:
            parts = {"candidates": (sample.scores, COLOURS[0])}
        for name, (histograms, colour) in parts.items():
            total = np.sum(histograms, axis=0).astype(float)
            height = total[1:].copy()
            height[0] += total[0]  # scores of 0 exactly belong to the first visible bin
            n = max(sample.n_events, 1)
            filled = name != "true"
            style = {"fill": True, "alpha": 0.7} if filled else {"linewidth": 2, "zorder": 3}
            axis.stairs(height / n, edges, color=colour, label=name, **style)
        cut = THRESHOLDS[working_index(sample, threshold)]
        axis.axvline(cut, color="k", linestyle="--", linewidth=1, label=f"threshold {cut:.2f}")
        axis.set(yscale="log", xlim=(0, 1), xlabel="score", ylabel="voxels per event", title=sample.name)
        axis.legend(fontsize=9)
    return figure


def draw_counts(samples: Sequence[Sample], threshold: float | None) -> Figure:
    """Voxels per event: candidates and kept, and with truth all true ones and ghosts."""
    figure = Figure(figsize=(7.5, 1.6 + 1.7 * len(samples)), layout="constrained")
    axis = figure.add_subplot()
    labels, values, colours = [], [], []
    for sample in samples:
        counts, n = sample.counts(), max(sample.n_events, 1)
        index = working_index(sample, threshold)
        bars = {"candidates": (counts.candidates, "0.6")}
        bars[f"kept, score > {THRESHOLDS[index]:.2f}"] = (int(sample.kept(index).sum()), COLOURS[2])
        if sample.has_truth:
            bars["ghosts"] = (counts.ghost, COLOURS[5])
            bars["true candidates"] = (counts.true, COLOURS[0])
            if counts.truth is not None:
                bars["true"] = (counts.truth, "k")
        for name, (count, colour) in bars.items():
            labels.append(f"{sample.name}: {name}")
            values.append(count / n)
            colours.append(colour)
    drawn = axis.barh(range(len(values)), values, color=colours)
    axis.set_yticks(range(len(values)), labels)
    axis.invert_yaxis()
    axis.bar_label(drawn, fmt="{:,.0f}", padding=4)
    axis.set(xscale="log", xlabel="voxels per event")
    axis.set_xlim(min([1.0, *(v for v in values if v > 0)]), max([*values, 10]) * 4)
    axis.grid(axis="x", alpha=0.3)
    return figure


def draw_training(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Loss, and every metric, of training and validation against the epoch."""
    columns = [c for c in rows[0] if c.startswith(("train_", "valid_"))]
    skipped = ("time", "rate")
    names = list(dict.fromkeys(c.partition("_")[2] for c in columns))
    names = [name for name in names if not name.endswith(skipped)]
    names = [
        name
        for name in names
        if any(np.isfinite(_column(rows, f"{p}_{name}")).any() for p in ("train", "valid"))
    ]
    across = min(max(len(names), 1), 3)
    down = -(-max(len(names), 1) // across)
    figure = Figure(figsize=(4.6 * across, 3.5 * down), layout="constrained")
    epochs = _column(rows, "epoch")
    for k, name in enumerate(names):
        axis = figure.add_subplot(down, across, k + 1)
        for part, colour, style in (("train", COLOURS[0], "o-"), ("valid", COLOURS[1], "s--")):
            values = _column(rows, f"{part}_{name}")
            if np.isfinite(values).any():
                axis.plot(epochs, values, style, color=colour, markersize=3.5, label=part)
        axis.set(xlabel="epoch", title=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
    return figure


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in rows], float)
