"""The pictures of one event. Times as colour, from early (dark) to late (light); charge as size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpcreco.experiments.icecube.display.load import Curve, Shown

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DPI = 110
TRUTH, FIT, SEED = "#000000", "#D55E00", "0.5"
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
            "Loss along each parameter, the others held; dashed: the parabola of the covariance, dotted: the truth.",
        )
    return made


def early_times(shown: Shown) -> np.ndarray:
    """(M,) when a tenth of each DOM's charge has come, NaN without light."""
    early = np.full(shown.detector.n_doms, np.nan)
    order = np.lexsort((shown.time, shown.dom))
    dom, time, charge = shown.dom[order], shown.time[order], shown.charge[order]
    for number, first, last in _groups(dom):
        share = np.cumsum(charge[first:last])
        early[number] = time[first:last][np.searchsorted(share, 0.1 * share[-1])]
    return early


def _groups(dom: np.ndarray) -> list[tuple[int, int, int]]:
    starts = np.flatnonzero(np.r_[True, dom[1:] != dom[:-1]]) if len(dom) else np.zeros(0, int)
    ends = [*starts[1:].tolist(), len(dom)]
    return [(int(dom[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def draw_array(shown: Shown) -> Figure:
    """In 3-D, from above and from the side."""
    figure = Figure(figsize=(15.5, 6.2), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(1.35, 1, 1))
    charge, early = shown.dom_charge, early_times(shown)
    lit = np.flatnonzero(charge > 0)
    lit = lit[np.argsort(-charge[lit])]  # small circles on top of large ones
    norm = _time_norm(early[lit], charge[lit])
    area = _area(charge[lit], charge.max() if len(lit) else 1.0)
    style: dict[str, Any] = {
        "c": early[lit], "s": area, "cmap": "plasma", "norm": norm, "edgecolors": "k", "linewidths": 0.4, "alpha": 0.85
    }  # fmt: skip
    space = figure.add_subplot(grid[0], projection="3d")
    marks = _draw_space(space, shown, lit, style)
    for place, (a, b) in enumerate(((0, 1), (0, 2))):
        axis = figure.add_subplot(grid[place + 1])
        _draw_projection(axis, shown, lit, style, a, b)
    if len(lit):
        figure.colorbar(
            marks, ax=figure.axes, label="time of a tenth of the DOM's charge [ns]", shrink=0.75, pad=0.01
        )
    figure.suptitle(f"event {shown.number}: {charge.sum():.0f} PE on {len(lit)} DOMs", fontsize=13)
    handles = _legend(shown, charge)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _time_norm(early: np.ndarray, charge: np.ndarray) -> Normalize:
    """From the earliest to where nearly all charge has begun: a lone noise pulse does not take all colours."""
    known = np.isfinite(early)
    if not known.any():
        return Normalize(0, 1)
    order = np.argsort(early[known])
    share = np.cumsum(charge[known][order])
    share /= share[-1]
    times = early[known][order]
    low, high = times[np.searchsorted(share, 0.02)], times[min(np.searchsorted(share, 0.97), len(times) - 1)]
    return Normalize(low, max(high, low + 50.0), clip=True)


def _area(charge: np.ndarray, largest: float) -> np.ndarray:
    """Points^2: grows with the square root of charge, so that one PE stays visible beside thousands."""
    return 10 + 290 * np.sqrt(charge / max(largest, 1.0))


def _legend(shown: Shown, charge: np.ndarray) -> list[Line2D]:
    largest = charge.max() if len(charge) else 1.0
    steps = sorted({10 ** int(np.floor(np.log10(max(largest, 1.0)))), 1})
    handles = [
        Line2D(
            [], [], marker="o", linestyle="", color="0.7", markeredgecolor="k", label=f"{step:,} PE",
            markersize=float(np.sqrt(_area(np.array([float(step)]), largest)[0])),
        )
        for step in steps
    ]  # fmt: skip
    for label, colour, values in (("truth", TRUTH, shown.truth), ("fit", FIT, shown.best)):
        if shown.place(values) is not None:
            handles.append(Line2D([], [], color=colour, marker="*", markersize=11, label=label))
    return handles


def _draw_space(axis: Any, shown: Shown, lit: np.ndarray, style: dict[str, Any]) -> Any:
    positions = shown.detector.flat_positions
    for string in shown.detector.positions:
        axis.plot(*string[[0, -1]].T, color="0.8", linewidth=0.6, zorder=0)
    marks = axis.scatter(*positions[lit].T, depthshade=False, **style)
    length = 0.35 * max(np.ptp(positions, axis=0))
    for colour, values in ((TRUTH, shown.truth), (FIT, shown.best)):
        place, flight = shown.place(values), shown.flight(values)
        if place is None:
            continue
        axis.plot(*place[:, None], "*", color=colour, markersize=13, zorder=10)
        if flight is not None:
            axis.quiver(*place, *(length * flight), color=colour, linewidth=1.8, arrow_length_ratio=0.15)
    axis.set(xlabel="x [m]", ylabel="y [m]")
    axis.set_zlabel("z [m]", labelpad=-2)
    low, high = positions.min(0), positions.max(0)
    span = np.maximum(high - low, 1.0)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axis.set_box_aspect(np.maximum(span, 0.5 * span.max()), zoom=0.86)
    axis.view_init(elev=16, azim=-62)
    axis.tick_params(labelsize=8)
    return marks


def _draw_projection(
    axis: Axes, shown: Shown, lit: np.ndarray, style: dict[str, Any], a: int, b: int
) -> None:
    positions = shown.detector.flat_positions
    axis.plot(positions[:, a], positions[:, b], ".", color="0.8", markersize=2.5, zorder=0)
    dark = shown.excluded
    axis.plot(positions[dark, a], positions[dark, b], "x", color="0.45", markersize=4, zorder=1)
    axis.scatter(positions[lit, a], positions[lit, b], **style)
    length = 0.3 * max(np.ptp(positions, axis=0))
    for colour, values in ((TRUTH, shown.truth), (FIT, shown.best)):
        place, flight = shown.place(values), shown.flight(values)
        if place is None:
            continue
        axis.plot(place[a], place[b], "*", color=colour, markersize=13, zorder=10)
        if flight is not None:
            axis.annotate(
                "", (place[a] + length * flight[a], place[b] + length * flight[b]), (place[a], place[b]),
                arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.8}, zorder=10,
            )  # fmt: skip
    axis.set(
        xlabel=f"{'xyz'[a]} [m]", ylabel=f"{'xyz'[b]} [m]", title="from above" if b == 1 else "from the side"
    )
    axis.set_aspect("equal", adjustable="datalim")


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


def draw_sky(shown: Shown) -> Figure:
    """The scan on the whole sky, and close around its minimum."""
    import healpy

    from hpcreco.experiments.icecube.analysis.results import unit

    table = shown.extra["sky"]
    rise = 2 * (table["loss"] - np.nanmin(table["loss"]))
    whole = _finest(table["nside"], table["pixel"], rise)
    nside = healpy.npix2nside(len(whole))
    figure = Figure(figsize=(14.5, 5.2), layout="constrained")
    broad, close = figure.subplots(1, 2, width_ratios=(1.7, 1))
    best = table["parameters"][int(np.nanargmin(table["loss"]))]
    zenith, azimuth = shown.role("zenith", best), shown.role("azimuth", best)
    width = 1.1 * max(12.0, _extent(table, rise, unit(np.array([zenith]), np.array([azimuth]))[0]))
    low, high = (
        azimuth - np.radians(width) / np.sin(max(zenith, 0.2)),
        azimuth + np.radians(width) / np.sin(max(zenith, 0.2)),
    )
    top = max(0.0, zenith - np.radians(width)), min(np.pi, zenith + np.radians(width))
    for axis, azimuths, zeniths in ((broad, (0, 2 * np.pi), (0, np.pi)), (close, (low, high), top)):
        a, z = np.meshgrid(np.linspace(*azimuths, 500), np.linspace(*zeniths, 400))
        image = whole[healpy.ang2pix(nside, z, np.mod(a, 2 * np.pi), nest=True)]
        limit = float(np.nanquantile(image[np.isfinite(image)], 0.6)) if axis is broad else 40.0
        extent = (*np.degrees(azimuths), *np.degrees(zeniths[::-1]))
        shown_image = axis.imshow(
            image, extent=extent, aspect="auto", cmap="viridis_r", norm=Normalize(0, max(limit, 10.0)),
            interpolation="nearest",
        )  # fmt: skip
        figure.colorbar(shown_image, ax=axis, label="2 Δ loss", extend="max")
        if axis is close:
            lines = {"levels": [1.386, 4.605], "colors": "w", "linestyles": ["-", "--"]}
            axis.contour(np.degrees(a), np.degrees(z), image, **lines)
        for colour, values, marker in ((TRUTH, shown.truth, "x"), (FIT, shown.best, "+")):
            place = shown.role("azimuth", values), shown.role("zenith", values)
            if place[0] is not None and np.isfinite(place[0]):
                turned = place[0] + 2 * np.pi * np.round(
                    ((azimuths[0] + azimuths[1]) / 2 - place[0]) / (2 * np.pi)
                )
                axis.plot(
                    *np.degrees([turned, place[1]]), marker, color=colour, markersize=11, markeredgewidth=2.2
                )
        axis.set(
            xlim=np.degrees(azimuths),
            ylim=np.degrees(zeniths[::-1]),
            xlabel="azimuth [degrees]",
            ylabel="zenith [degrees]",
        )
    broad.set_title("whole sky")
    close.set_title("around the minimum; lines hold 50 % and 90 %")
    handles = (
        [Line2D([], [], marker="x", linestyle="", color=TRUTH, label="truth", markeredgewidth=2)]
        if shown.truth is not None
        else []
    )
    handles.append(Line2D([], [], marker="+", linestyle="", color=FIT, label="fit", markeredgewidth=2))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _finest(nside: np.ndarray, pixel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """NESTED map at the finest resolution; a finer pixel beats a coarser one."""
    finest = int(nside.max())
    whole = np.full(12 * finest**2, np.nan)
    for resolution in np.unique(nside):
        share = (finest // int(resolution)) ** 2
        own = nside == resolution
        whole.reshape(-1, share)[pixel[own]] = values[own][:, None]
    return whole


def _extent(table: Any, rise: np.ndarray, centre: np.ndarray) -> float:
    """Degrees from the minimum to the farthest pixel within 90 %."""
    import healpy

    far = 0.0
    for nside, pixel, value in zip(table["nside"], table["pixel"], rise, strict=True):
        if value < 4.6:
            place = np.array(healpy.pix2vec(int(nside), int(pixel), nest=True))
            far = max(far, float(np.degrees(np.arccos(np.clip(place @ centre, -1, 1)))))
    return min(far, 60.0)


def draw_scans(shown: Shown) -> Figure:
    """Loss along each parameter."""
    table = shown.extra["scan"]
    numbers = np.unique(table["parameter"])[:12]
    columns = min(4, len(numbers))
    lines = -(-len(numbers) // columns)
    figure = Figure(figsize=(3.9 * columns, 3 * lines), layout="constrained")
    widths = shown.widths()
    best_loss = float(shown.extra["fit"]["loss"])
    for place, number in enumerate(numbers):
        axis = figure.add_subplot(lines, columns, place + 1)
        rows = table["parameter"] == number
        value, loss = table["value"][rows], table["loss"][rows] - best_loss
        name, middle = shown.names[number], float(shown.best[number])
        axis.plot(value, loss, color=COLOURS[0])
        held = _conditional(shown, name)
        if held is not None:
            axis.plot(value, 0.5 * ((value - middle) / held) ** 2, "--", color="0.5", linewidth=1.2)
        axis.axvline(middle, color=FIT, linewidth=1)
        if shown.truth is not None and value.min() <= shown.truth[number] <= value.max():
            axis.axvline(float(shown.truth[number]), color=TRUTH, linestyle=":", linewidth=1.4)
        finite = loss[np.isfinite(loss)]
        axis.set_ylim(min(-0.5, float(finite.min())), max(1.0, min(float(np.quantile(finite, 0.95)), 60.0)))
        said = f"{middle:.5g}" + (f" ± {widths[name]:.2g}" if name in widths else "")
        axis.set_title(f"{name}\n{said}", fontsize=10)
    figure.supylabel("loss above the fit's")
    return figure


def _conditional(shown: Shown, name: str) -> float | None:
    """Standard deviation with the other parameters held: one over the root of the inverse covariance's diagonal."""
    flat = shown.extra.get("covariance", {}).get("hessian")
    if flat is None or name not in shown.free:
        return None
    k, number = len(shown.free), shown.free.index(name)
    matrix = np.asarray(flat).reshape(k, k)
    if not np.isfinite(matrix).all():
        return None
    information = np.linalg.pinv(matrix, hermitian=True, rcond=1e-15)[number, number]
    return float(1 / np.sqrt(information)) if information > 0 else None
