"""The pictures of a report, each with the numbers behind it. Colours by Okabe and Ito."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcreco.experiments.icecube.analysis.results import Results
from hpcreco.experiments.icecube.analysis.statistics import Coverage, Row, coverage, pulls, resolutions
from hpcreco.pages.picture import COLOURS, Picture, plain_ticks


def pictures(results: Results) -> dict[str, Picture]:
    """All pictures that the results have data for, by file name without suffix."""
    made = {}
    if results.has_truth and results.value("energy", "truth") is not None:
        made["resolution"] = draw_resolutions(results)
        made["energy"] = draw_energy(results)
    if results.has_truth and results.covariance:
        made["pulls"] = draw_pulls(results)
    found = coverage(results)
    if found is not None:
        made["coverage"] = draw_coverage(found, results.n_events)
    if results.pit:
        made["times"] = draw_times(results)
    if "one_sided" in results.goodness:
        made["goodness"] = draw_goodness(results)
    if "truth_loss" in results.fit:
        made["loss"] = draw_loss(results)
    return made


def draw_resolutions(results: Results) -> Picture:
    """Medians and 68 % of the opening angle and the distance of vertices, and the width of ln E."""
    rows = resolutions(results)
    bins = rows[:-1]
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    kinds = (
        ("angle_deg", ("median", "68"), "opening angle to the truth [degrees]"),
        ("vertex_m", ("median", "68"), "distance to the true vertex [m]"),
        ("ln_e", ("width",), "half width of 68 % of ln E"),
    )
    centre = np.sqrt([row["energy_low"] * row["energy_high"] for row in bins])
    edges = np.array([*(row["energy_low"] for row in bins), bins[-1]["energy_high"]], float)
    for place, (name, parts, label) in enumerate(kinds):
        axis = figure.add_subplot(1, 3, place + 1)
        for part in parts:
            for suffix, colour, who in (("", COLOURS[0], "fit"), ("_seed", "0.55", "seed")):
                key = f"{name}_{part}{suffix}"
                if not bins or key not in bins[0]:
                    continue
                values = np.array([row[key] for row in bins], float)
                if not (values > 1e-6).any():
                    continue  # fits that started from the truth
                word = {"median": "median", "68": "68 % below", "width": ""}[part]
                axis.stairs(values, edges, baseline=None, color=colour, alpha=0.35, linewidth=1)
                axis.plot(
                    centre, values, "o-" if part != "68" else "s--", color=colour, markersize=5,
                    label=f"{who} {word}".strip(),
                )  # fmt: skip
        axis.set(xscale="log", xlabel="true energy [GeV]", ylabel=label)
        if axis.lines:
            axis.set_yscale("log")
            plain_ticks(axis.yaxis)
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=9)
    counts = ", ".join(str(row["events"]) for row in bins)
    return Picture(figure, f"Resolutions against true energy; events per bin: {counts}.", rows)


def draw_energy(results: Results) -> Picture:
    """Fitted against true energy, and ln of their ratio."""
    true, fitted = results.value("energy", "truth"), results.value("energy")
    ratio = results.log_energy()
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axis = figure.add_subplot(1, 2, 1)
    axis.plot(
        true, fitted, ".", color=COLOURS[0], alpha=min(1.0, 200 / max(len(true), 1) + 0.1), markersize=5
    )
    span = [np.nanmin(true) / 1.3, np.nanmax(true) * 1.3]
    axis.plot(span, span, color="0.6", linewidth=1)
    axis.set(xscale="log", yscale="log", xlim=span, xlabel="true energy [GeV]", ylabel="fitted energy [GeV]")
    axis = figure.add_subplot(1, 2, 2)
    limit = max(0.05, float(np.nanquantile(np.abs(ratio), 0.98)) * 1.2)
    axis.hist(np.clip(ratio, -limit, limit), bins=np.linspace(-limit, limit, 41), color=COLOURS[0])
    axis.axvline(0, color="k", linewidth=1)
    median = float(np.nanmedian(ratio))
    axis.axvline(median, color=COLOURS[1], linestyle="--", label=f"median {median:+.3f}")
    axis.set(xlabel="ln (fitted / true energy)", ylabel="events")
    axis.legend()
    rows: list[Row] = [
        {"true_energy": float(t), "fitted_energy": float(f), "ln_ratio": float(r)}
        for t, f, r in zip(true, fitted, ratio, strict=True)
    ]
    return Picture(figure, "Fitted against true energy; the last bins hold what lies beyond.", rows)


def draw_pulls(results: Results) -> Picture:
    """Residual over standard deviation of every free parameter, with a standard normal."""
    rows = pulls(results)
    kind = next(k for k in ("hessian", "sandwich", *results.covariance) if k in results.covariance)
    names = list(results.free)[:12]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.5 * columns, 2.9 * lines + 0.4), layout="constrained")
    grid = np.linspace(-4, 4, 33)
    fine = np.linspace(-4, 4, 200)
    by_name = {row["parameter"]: row for row in rows if row["covariance"] == kind}
    for place, name in enumerate(names):
        axis = figure.add_subplot(lines, columns, place + 1)
        pull = results.pull(name, kind)
        known = pull[np.isfinite(pull)]
        axis.hist(np.clip(known, -3.99, 3.99), bins=grid, color=COLOURS[0], alpha=0.8)
        axis.plot(
            fine,
            len(known) * (grid[1] - grid[0]) * np.exp(-(fine**2) / 2) / np.sqrt(2 * np.pi),
            color="k",
            linewidth=1,
        )
        row = by_name.get(name)
        said = "" if row is None else f"mean {row['mean']:+.2f}, std {row['std']:.2f}"
        axis.set_title(f"{name}\n{said}", fontsize=10)
        axis.set_xlim(-4, 4)
    figure.supxlabel("(fitted - true) / standard deviation")
    figure.supylabel("events")
    return Picture(
        figure,
        f"Pulls with the covariance '{kind}'; line: standard normal; the last bins hold what lies beyond.",
        rows,
    )


def draw_coverage(found: Coverage, n_events: int) -> Picture:
    """Share of events whose truth lies within the region of a nominal probability."""
    figure = Figure(figsize=(5.6, 5.9), layout="constrained")
    axis = figure.add_subplot()
    error = np.sqrt(found.nominal * (1 - found.nominal) / max(n_events, 1))
    axis.fill_between(
        found.nominal,
        found.nominal - error,
        found.nominal + error,
        color="0.88",
        label="statistics of the sample",
    )
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    styles = ("-", "--", "-.", ":")
    for k, (name, share) in enumerate(found.found.items()):
        at_68 = float(np.interp(0.683, found.nominal, share))
        axis.plot(
            found.nominal, share, styles[k // len(COLOURS) % 4], color=COLOURS[k % len(COLOURS)],
            label=f"{name}: {at_68:.2f} at 0.68",
        )  # fmt: skip
    axis.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="nominal probability", ylabel="share of events that hold the truth"
    )
    axis.set_box_aspect(1)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left")
    rows: list[Row] = [
        {"nominal": float(p), **{name: float(share[i]) for name, share in found.found.items()}}
        for i, p in enumerate(found.nominal)
    ]
    return Picture(figure, "Coverage: below the diagonal, uncertainties are too small.", rows)


def draw_times(results: Results) -> Picture:
    """Expected fraction of a DOM's light before each pulse: uniform if the densities are right."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.add_subplot()
    rows: list[Row] = []
    for k, (name, histogram) in enumerate(sorted(results.pit.items())):
        # every event counts the same, or the brightest one would be all that is seen
        total = histogram.sum(1, keepdims=True)
        share = (histogram / np.maximum(total, 1e-9))[total[:, 0] > 0]
        mean, bins = share.mean(0), histogram.shape[1]
        error = share.std(0) / np.sqrt(max(len(share), 1))
        edges = np.linspace(0, 1, bins + 1)
        label = {"best": "best fit", "truth": "true parameters"}.get(name, name)
        axis.stairs(mean * bins, edges, color=COLOURS[k], linewidth=1.6, label=label)
        axis.errorbar(
            (edges[:-1] + edges[1:]) / 2, mean * bins, error * bins, fmt="none", color=COLOURS[k], linewidth=1
        )
        rows += [
            {"parameters": name, "low": float(lo), "share": float(m), "error": float(e)}
            for lo, m, e in zip(edges[:-1], mean, error, strict=True)
        ]
    axis.axhline(1, color="0.5", linewidth=1)
    axis.set(
        xlim=(0, 1), xlabel="expected fraction of the DOM's light before the pulse", ylabel="relative charge"
    )
    axis.set_ylim(0, max(1.5, axis.get_ylim()[1]))
    axis.legend()
    return Picture(
        figure, "Probability integral transform of pulse times, mean of events; flat is right.", rows
    )


def draw_goodness(results: Results) -> Picture:
    """p-values: flat if the model makes such events."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.add_subplot()
    p = results.goodness["one_sided"]
    axis.hist(p, bins=np.linspace(0, 1, 21), color=COLOURS[0])
    axis.axhline(len(p) / 20, color="0.4", linestyle="--", linewidth=1, label="uniform")
    axis.set(xlim=(0, 1), xlabel="share of drawn events with a higher loss", ylabel="events")
    axis.legend()
    rows: list[Row] = [
        {"one_sided": float(a), "two_sided": float(b)}
        for a, b in zip(p, results.goodness["two_sided"], strict=True)
    ]
    return Picture(figure, "Goodness of fit; a peak at 0 are events that the model would not make.", rows)


def draw_loss(results: Results) -> Picture:
    """How far below the truth's loss fits end: half a chi-square with as many degrees of freedom as free parameters."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis: Axes = figure.add_subplot()
    gain = results.fit["truth_loss"] - results.fit["loss"]
    known = gain[np.isfinite(gain)]
    top = max(12.0, float(np.quantile(known, 0.98)) if len(known) else 12.0)
    edges = np.linspace(-4, top, 41)
    axis.hist(np.clip(known, edges[0], edges[-1]), bins=edges, color=COLOURS[0])
    from scipy.stats import chi2

    fine = np.linspace(0.01, top, 200)
    k = len(results.free)
    axis.plot(
        fine,
        len(known) * (edges[1] - edges[0]) * 2 * chi2.pdf(2 * fine, k),
        "k",
        linewidth=1,
        label=f"χ²({k}) / 2",
    )
    axis.set(xlabel="loss at the truth - loss of the fit", ylabel="events")
    axis.legend()
    rows: list[Row] = [{"gain": float(value)} for value in gain]
    return Picture(figure, "Fits that end above the truth (negative) have missed the minimum.", rows)
