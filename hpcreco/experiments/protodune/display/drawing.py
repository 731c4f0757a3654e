"""How one panel is drawn: as points in 3-D, and as projections onto the three planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from hpcreco.experiments.protodune.display.panels import Panel
from hpcreco.experiments.protodune.display.region import Region
from hpcreco.experiments.protodune.display.scene import AXES, Border

PROJECTIONS = ((2, 1, 0), (2, 0, 1), (0, 1, 2))
"""(horizontal, vertical, integrated) axis of each projection: from the side, from above, along the beam."""
BLOCKS = 220
"""Pixels of a projection along its longest side."""
MAX_POINTS = 40_000
"""Points of a 3-D view; more of them only cover each other."""
BORDER = {"linewidth": 0.8, "linestyle": "--"}
BORDER_COLOUR = "0.45"


def axes(figure: Figure, left: float, bottom: float, width: float, height: float, **options: Any) -> Any:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def draw_legend(axis: Axes, legend: Sequence[tuple[str, str]]) -> None:
    """Names and colours beside the axes."""
    marks = [Line2D([], [], marker="s", linestyle="", color=colour, label=name) for name, colour in legend]
    axis.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)


def draw_scale(figure: Figure, shown: AxesImage, panel: Panel, axis: Axes) -> None:
    """The colours of a panel and what they stand for, in `axis`."""
    bar = figure.colorbar(shown, cax=axis, label=panel.label)
    if isinstance(panel.norm, SymLogNorm):
        ticks = [0.0, *(sign * 10.0**k for sign in (-1, 1) for k in range(3, 8))]
        bar.set_ticks([t for t in sorted(ticks) if abs(t) <= (panel.norm.vmax or 0)], minor=False)
        bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        bar.minorticks_off()


def draw_space(axis: Any, panel: Panel, region: Region, borders: Sequence[Border] = ()) -> None:
    """Points in 3-D, beam (z) to the right, drift (x) in depth, y up."""
    kept = np.flatnonzero(region.inside(panel.points))
    if len(kept) > MAX_POINTS:
        kept = np.sort(np.random.default_rng(0).choice(kept, MAX_POINTS, replace=False))
    at = region.at(panel.points[kept] + 0.5)
    voxel = region.size.mean() / max(region.extent) * 230  # points: about the size of a voxel
    area = max(float(np.clip(30_000 / max(len(kept), 1), 0.4, 9)), min(voxel, 6) ** 2)
    axis.scatter(
        at[:, 2], at[:, 0], at[:, 1], c=panel.values[kept], s=area, cmap=panel.cmap, norm=panel.norm, marker="s",
        linewidths=0, depthshade=False, rasterized=True,
    )  # fmt: skip
    _border_edges(axis, region, borders)
    axis.set(xlim=region.limits(2), ylim=region.limits(0), zlim=region.limits(1))
    wide = region.extent[1] < max(region.extent[[0, 2]])
    axis.set_box_aspect(region.extent[[2, 0, 1]], zoom=0.78 if wide else 0.88)
    axis.set_xlabel(f"z [{region.unit}]", labelpad=4)
    axis.set_ylabel(f"x [{region.unit}]", labelpad=4)
    axis.set_zlabel(f"y [{region.unit}]", labelpad=6)
    axis.tick_params(labelsize=7)
    for name, length in zip("xyz", region.extent[[2, 0, 1]], strict=True):
        axis.locator_params(axis=name, nbins=4 if length > 0.5 * max(region.extent) else 2)
    axis.view_init(elev=18, azim=-60)


def _border_edges(axis: Any, region: Region, borders: Sequence[Border]) -> None:
    for border in borders:
        low, high = np.maximum(border.low, region.low), np.minimum(border.high, region.high)
        if (low >= high).any():
            continue
        corners = region.at(np.array([low, high]))
        for a in range(3):
            b, c = (a + 1) % 3, (a + 2) % 3
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                ends = np.empty((2, 3))
                ends[:, a], ends[:, b], ends[:, c] = corners[:, a], corners[i, b], corners[j, c]
                axis.plot(ends[:, 2], ends[:, 0], ends[:, 1], color=BORDER_COLOUR, **BORDER)


def draw_projection(
    axis: Axes,
    panel: Panel,
    directions: tuple[int, int, int],
    region: Region,
    borders: Sequence[Border] = (),
) -> AxesImage:
    """One projection with its axes; dashed boxes are the TPCs."""
    across, up, _ = directions
    shown = axis.imshow(
        project(panel, across, up, region), origin="lower", aspect="equal", interpolation="nearest",
        extent=(*region.limits(across), *region.limits(up)), cmap=panel.cmap, norm=panel.norm,
    )  # fmt: skip
    for border in borders:
        _draw_border(axis, border, across, up, region, named=len(borders) > 1 and (across, up) == (2, 0))
    box = axis.get_window_extent()
    for side, along, pixels in ((axis.xaxis, across, box.width), (axis.yaxis, up, box.height)):
        inches = pixels / axis.figure.dpi
        name = AXES[along] if inches > 1.4 else AXES[along][0]
        side.set_label_text(f"{name} [{region.unit}]")
        side.set_major_locator(MaxNLocator(int(np.clip(inches / 0.5, 1, 6)), steps=[1, 2, 2.5, 5, 10]))
    axis.tick_params(labelsize=8)
    return shown


def _draw_border(axis: Axes, border: Border, across: int, up: int, region: Region, named: bool) -> None:
    low, high = region.at(border.low), region.at(border.high)
    size = high - low
    box = Rectangle((low[across], low[up]), size[across], size[up], fill=False, color=BORDER_COLOUR, **BORDER)
    axis.add_patch(box)
    if named:
        at = ((low + high)[across] / 2, (low + high)[up] / 2)
        style = {"color": BORDER_COLOUR, "fontsize": 8, "ha": "center", "va": "center", "clip_on": True}
        axis.text(*at, border.name, **style)


def project(panel: Panel, across: int, up: int, region: Region) -> np.ndarray:
    """Image (rows up, columns across) of what each block of voxels shows, NaN where there is no voxel.

    That is the value farthest from zero, or the class most voxels of the block have, the later one on a tie.
    Blocks are as square as whole voxels allow; an image has about BLOCKS of them along its longest side at most.
    """
    edge = max(region.extent[across], region.extent[up]) / BLOCKS
    blocks = [max(1, round(edge / region.size[a])) for a in (up, across)]
    shape = [-(-int(region.high[a] - region.low[a]) // b) for a, b in zip((up, across), blocks, strict=True)]
    inside = region.inside(panel.points)
    points, values = panel.points[inside], panel.values[inside]
    rows, columns = ((points[:, a] - region.low[a]) // b for a, b in zip((up, across), blocks, strict=True))
    image = np.full(shape, np.nan)
    if panel.classes:
        counts = np.zeros((len(panel.legend), *shape), np.int32)
        np.add.at(counts, (values.astype(int), rows, columns), 1)
        most = len(counts) - 1 - counts[::-1].argmax(0)
        return np.where(counts.any(0), most + 0.5, np.nan)
    order = np.argsort(np.abs(values), kind="stable")
    image[rows[order], columns[order]] = values[order]  # the last one written stays
    return image
