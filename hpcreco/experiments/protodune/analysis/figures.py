"""The pictures of purity and efficiency, scores and counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS
from hpcreco.experiments.protodune.analysis.results import best_cut, working_index
from hpcreco.experiments.protodune.analysis.sample import Sample
from hpcreco.pages.picture import COLOURS, SIZE, Picture


def pictures(samples: Sequence[Sample], threshold: float | None) -> dict[str, Picture]:
    """Scores, counts, and with truth the curve, by file name; `tables` writes the numbers behind them."""
    made = {
        "scores": Picture(
            draw_scores(samples, threshold),
            "Scores of candidates. A good network piles true voxels up at 1 and ghosts at 0; what is right of the "
            "dashed line is called true. The scale is logarithmic: ghosts outnumber true voxels twenty to one.",
            (),
        ),
        "counts": Picture(
            draw_counts(samples, threshold),
            "Voxels of an average event on the way: tiling proposes candidates, the network keeps some of them.",
            (),
        ),
    }
    with_truth = [s for s in samples if s.has_truth]
    if not with_truth:
        return made
    curve = Picture(
        draw_curves(with_truth, threshold),
        "Each point is a threshold on the score: purity is the share of kept voxels that are true, efficiency "
        "the share of true voxels that are kept. Dashed: the best that a cut on the planes' charges does "
        "without a network.",
        (),
    )
    return {"curve": curve, **made}


def draw_curves(samples: Sequence[Sample], threshold: float | None) -> Figure:
    """Purity against efficiency: the network, its working point, the break-even line, the best cut on a feature."""
    figure = Figure(figsize=(SIZE[0], SIZE[0] + 0.3 + 0.85 * len(samples)), layout="constrained")
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
    figure = Figure(figsize=(SIZE[0], 3.9 * max(len(samples), 1)), layout="constrained")
    edges = np.append(THRESHOLDS, 1.0)
    for k, sample in enumerate(samples):
        axis = figure.add_subplot(len(samples), 1, k + 1)
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
    figure = Figure(figsize=(SIZE[0], 1.6 + 1.7 * len(samples)), layout="constrained")
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
    axis.set_xlim(min([1.0, *(v for v in values if v > 0)]), max([*values, 10]) * 15)
    axis.grid(axis="x", alpha=0.3)
    return figure
