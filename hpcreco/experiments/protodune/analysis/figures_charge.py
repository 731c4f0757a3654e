"""Pictures of measured charge: residuals, sums of events and particles, dQ/dx along tracks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpcreco.experiments.protodune.analysis import charge, detail_tables
from hpcreco.experiments.protodune.analysis.statistics import Statistics
from hpcreco.pages.picture import COLOURS, SIZE, Picture

RANGES = np.concatenate([np.arange(0, 200, 20.0), np.arange(200, 1000, 100.0), np.arange(1000, 4001, 500.0)])
"""mm: bins of the residual range."""


def draw_residuals(made: Statistics) -> Picture | None:
    """Relative residuals of true voxels, by their charge."""
    counts = made.detail.arrays.get("residuals")
    if counts is None or not counts.sum():
        return None
    rows = []
    for edge, own in zip(charge.CHARGES, counts, strict=True):
        if own.sum() < 20:
            continue
        low, middle, high = (charge.quantile(own, share) for share in (0.16, 0.5, 0.84))
        high = charge.EDGES[-1] if np.isnan(high) else high  # beyond what is drawn
        rows.append({"electrons_from": float(edge), "voxels": int(own.sum()), "median": middle, "low_16": low,
                     "high_84": high})  # fmt: skip
    if not rows:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.add_subplot()
    at = np.array([r["electrons_from"] for r in rows]) * 10 ** (4.5 / 27 / 2)
    axis.axhline(0, color="k", linewidth=1)
    columns = {n: np.array([r[n] for r in rows]) for n in ("median", "low_16", "high_84")}
    axis.plot(at, columns["median"], "o-", color=COLOURS[0], markersize=4, label="median")
    axis.fill_between(
        at, columns["low_16"], columns["high_84"], color=COLOURS[0], alpha=0.25, label="central 68 %"
    )
    axis.set(xscale="log", ylim=(-1.5, 3), xlabel="true charge of a voxel [electrons]",
             ylabel="(measured - true) / true", title=f"{made.sample.name}: voxels")  # fmt: skip
    axis.legend()
    axis.grid(alpha=0.3)
    return Picture(
        figure,
        "How the charge of true voxels is measured, by how much they hold. Small charges are pulled up by their "
        "neighbours; -1 is a voxel that got nothing.",
        rows,
    )


def draw_sums(made: Statistics) -> Picture | None:
    """Measured over true charge of events and particles."""
    found = {"events": detail_tables.charge_events(made), "particles": detail_tables.charge_particles(made)}
    rows = [
        {"of": name, "ratio": r["ratio"], "true": r["true"]} for name, part in found.items() for r in part
    ]
    rows = [row for row in rows if np.isfinite(row["ratio"])]
    if not rows:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.add_subplot()
    edges = np.linspace(0, 2, 51)
    for (name, part), colour in zip(found.items(), COLOURS, strict=False):
        ratio = np.array([r["ratio"] for r in part])
        ratio = ratio[np.isfinite(ratio)]
        if not len(ratio):
            continue
        s = charge.summarise(ratio - 1)
        axis.hist(np.clip(ratio, 0, 2 - 1e-9), edges, histtype="step", linewidth=1.8, color=colour, density=True,
                  label=f"{len(ratio)} {name}: bias {s.bias:+.1%}, RMS {s.rms:.1%}")  # fmt: skip
    axis.axvline(1, color="k", linewidth=1)
    axis.set(
        xlabel="measured / true charge",
        ylabel="density",
        ylim=(0, 1.25 * axis.get_ylim()[1]),
        title=f"{made.sample.name}: sums",
        xlim=(0, 2),
    )
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    return Picture(
        figure,
        "All measured charge over all true charge, also that which tiling or the ghost mask lost. The last bins hold "
        "what lies beyond.",
        rows,
    )


def draw_dqdx(made: Statistics) -> Picture | None:
    """dQ/dx of muons against residual range, of truth and measurement, and their ratio."""
    rows = detail_tables.dqdx(made, RANGES)
    if not rows:
        return None
    figure = Figure(figsize=(SIZE[0], 5.4), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for tracks, style in (("all", "-"), ("stopping", "--")):
        own = [r for r in rows if r["tracks"] == tracks]
        if not own:
            continue
        middle = [(r["range_from"] + r["range_to"]) / 2 for r in own]
        for name, colour in (("true", "0.35"), ("measured", COLOURS[0])):
            axes[0].plot(middle, [r[name] / 1e3 for r in own], f"o{style}", color=colour, markersize=3,
                         label=f"{name}, {tracks} muons")  # fmt: skip
        axes[1].plot(middle, [r["ratio"] for r in own], f"o{style}", color=COLOURS[0], markersize=3)
    axes[1].axhline(1, color="k", linewidth=1)
    axes[0].set(ylabel="dQ/dx [1000 e / mm]", title=f"{made.sample.name}: muons", xscale="log")
    axes[0].set_ylim(bottom=0)
    axes[1].set(xlabel="residual range [mm]", ylabel="measured / true", ylim=(0.4, 1.6))
    axes[0].legend(fontsize=9)
    for axis in axes:
        axis.grid(alpha=0.3)
    return Picture(
        figure,
        "Median charge per length against the distance to the track's end. Stopping muons (dashed) ionise more and "
        "more towards their end; the plateau is a minimum-ionising particle's, about 6,200 e/mm.",
        rows,
    )
