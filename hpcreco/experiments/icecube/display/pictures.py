"""The pictures of one event: all of them, and those of pulses in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpcreco.experiments.icecube.display.array import draw_array
from hpcreco.experiments.icecube.display.load import Curve, Shown
from hpcreco.experiments.icecube.display.scans import draw_scans
from hpcreco.experiments.icecube.display.sky import draw_sky
from hpcreco.experiments.icecube.display.style import COLOURS, FIT, TRUTH

Pictured = dict[str, tuple[str, Figure, str]]


def draw(shown: Shown, curves: Sequence[Curve] | None = None) -> Pictured:
    """By file name: title, figure, caption."""
    made: Pictured = {
        "array": (
            "The array",
            draw_array(shown),
            "Circles: DOMs with light, area by charge, colour by the time of the first tenth of it.",
        )
    }
    if len(shown.time):
        made["pulses"] = (
            "Pulses",
            draw_pulses(shown),
            "Charge against time, all DOMs together and string by string.",
        )
    if curves:
        made["doms"] = (
            "Brightest DOMs",
            draw_doms(shown, curves),
            "Pulses as a histogram, the light that the fit expects and its parts as lines; grey: dead time.",
        )
    if "sky" in shown.extra:
        made["sky"] = ("Sky", draw_sky(shown), "Twice the loss above its minimum, everything else fitted.")
    if "scan" in shown.extra:
        made["scans"] = (
            "Likelihood scans",
            draw_scans(shown),
            "Loss along each parameter; dashed: the parabola of the covariance, dotted: the truth.",
        )
    return made


def draw_pulses(shown: Shown) -> Figure:
    """Charge per time bin, and string against time."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
    low, high = _span(shown)
    edges = np.linspace(low, high, 121)
    top.hist(np.clip(shown.time, low, high), bins=edges, weights=shown.charge, color=COLOURS[0])
    top.set(ylabel=f"PE per {edges[1] - edges[0]:.0f} ns", yscale="log")
    string = shown.dom // shown.detector.doms_per_string
    order = np.argsort(-shown.charge)
    marks = bottom.scatter(
        shown.time[order], string[order], s=4 + 6 * np.sqrt(shown.charge[order]), alpha=0.5, linewidths=0,
        c=shown.detector.flat_positions[shown.dom[order], 2], cmap="viridis",
    )  # fmt: skip
    figure.colorbar(marks, ax=bottom, label="z of the DOM [m]")
    bottom.set(xlabel="time [ns]", ylabel="string", xlim=(low, high))
    outside = int(((shown.time < low) | (shown.time > high)).sum())
    for colour, values in ((TRUTH, shown.truth), (FIT, shown.best)):
        start = shown.role("time", values)
        if start is not None and low < start < high:
            for axis in (top, bottom):
                axis.axvline(start, color=colour, linestyle=":", linewidth=1.2)
    if outside:
        top.set_title(f"the first and last bin hold {outside} pulse(s) from outside the picture", fontsize=10)
    return figure


def _span(shown: Shown) -> tuple[float, float]:
    """Where nearly all charge is."""
    order = np.argsort(shown.time)
    share = np.cumsum(shown.charge[order]) / shown.charge.sum()
    low, high = (shown.time[order][min(np.searchsorted(share, q), len(order) - 1)] for q in (0.01, 0.98))
    wide = max(high - low, 200.0)
    return float(low - 0.2 * wide), float(high + 0.3 * wide)


def draw_doms(shown: Shown, curves: Sequence[Curve]) -> Figure:
    """Pulses of the brightest DOMs against what the model expects, with its parts."""
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = Figure(figsize=(5 * columns, 3.1 * lines + 0.6), layout="constrained")
    names: dict[str, str] = {}
    for place, curve in enumerate(curves):
        axis = figure.add_subplot(lines, columns, place + 1)
        _draw_dom(axis, shown, curve, names)
        if place % columns == 0:
            axis.set_ylabel("PE per ns")
        if place >= len(curves) - columns:
            axis.set_xlabel("time [ns]")
    handles = [Line2D([], [], color=colour, label=name) for name, colour in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw_dom(axis: Axes, shown: Shown, curve: Curve, names: dict[str, str]) -> None:
    own = shown.dom == curve.dom
    low, high = curve.times[0], curve.times[-1]
    edges = np.linspace(low, high, 41)
    counts, _ = np.histogram(shown.time[own], edges, weights=shown.charge[own])
    axis.stairs(counts / np.diff(edges), edges, fill=True, color="0.82")
    for start, stop, dom in zip(*(shown.gaps[n] for n in ("start", "stop", "dom")), strict=True):
        if dom == curve.dom:
            axis.axvspan(max(start, low), min(stop, high), color="0.9", hatch="//", linewidth=0)
    for name, rate in curve.rates.items():
        colour = names.setdefault(name, "k" if name == "sum" else COLOURS[(len(names)) % len(COLOURS)])
        axis.plot(
            curve.times, rate, color=colour, linewidth=1.8 if name == "sum" else 1.2,
            linestyle="-" if name == "sum" else "--",
        )  # fmt: skip
    string, dom = divmod(curve.dom, shown.detector.doms_per_string)
    axis.set_title(
        f"string {string}, DOM {dom}: {shown.charge[own].sum():.1f} PE, expected {curve.charges['sum']:.1f}",
        fontsize=10,
    )
    axis.set_xlim(low, high)
    tallest = max(float((counts / np.diff(edges)).max()), float(curve.rates["sum"].max()))
    axis.set_ylim(0, 1.15 * max(tallest, 1e-6))
