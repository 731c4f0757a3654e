"""The DOMs of an event in space. Times as colour, from early (dark) to late (light); charge as size."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpcreco.experiments.icecube.display.load import Shown
from hpcreco.experiments.icecube.display.style import FIT, TRUTH


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
