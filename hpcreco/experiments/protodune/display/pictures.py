"""Event pictures: rows of views (truth, candidates, prediction, difference), each in 3-D and three projections.

Projections are images whose pixels are blocks of voxels, at most a few hundred across, so that a single lit
voxel stays visible in a thumbnail; a block shows its largest value. Colours are safe for colour-blind readers
(Okabe and Ito; viridis).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpcreco.experiments.protodune.display.scene import AXES, Scene, WireImage

PROJECTIONS = ((2, 1, 0), (2, 0, 1), (0, 1, 2))
"""(horizontal, vertical, integrated) axis of each projection: from the side, from above, along the beam."""

CLASSES = (
    ("true, called true", "#0072B2"),
    ("ghost, called true", "#E69F00"),
    ("true, called ghost", "#000000"),
    ("true, no candidate", "#CC79A7"),
)
BLOCKS = 220
"""Pixels of a projection along its longest side."""
MAX_POINTS = 40_000
"""Points of a 3-D view; more of them only cover each other."""


@dataclass(frozen=True)
class Panel:
    """One row: points (n, 3), what colours them (n,), how. `code` ranks classes, the last one drawn on top."""

    title: str
    points: np.ndarray
    values: np.ndarray
    cmap: Colormap
    norm: Normalize
    label: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def panels(scene: Scene, threshold: float) -> list[Panel]:
    """The rows that the scene has data for, of the voxels in the region to show."""
    rows: list[Panel] = []
    if scene.has_truth or len(scene.missed):
        coords, charge = scene.truth
        rows.append(_by_charge("truth", coords, charge, scene.truth_unit))
    if len(scene.candidates):
        rows.append(_by_charge("candidates", scene.candidates, scene.charge, scene.charge_unit))
    if scene.scores is not None:
        called = scene.scores.astype(float) > threshold
        rows.append(
            Panel(
                f"prediction, score > {threshold:.2f}",
                scene.candidates[called],
                scene.scores[called],
                _sequential(),
                Normalize(threshold, 1),
                "score",
            )
        )
        if scene.is_true is not None:
            rows.append(_difference(scene, called, scene.is_true))
    shown = [scene.inside(row.points) for row in rows]
    return [
        replace(row, points=row.points[i], values=row.values[i]) for row, i in zip(rows, shown, strict=True)
    ]


def _sequential() -> Colormap:
    """Viridis from light to dark, without the yellow that vanishes on white."""
    return ListedColormap(colormaps["viridis_r"](np.linspace(0.12, 1, 256)), "viridis_on_white")


def _by_charge(name: str, points: np.ndarray, charge: np.ndarray, unit: str) -> Panel:
    positive = charge[charge > 0]
    low, high = np.quantile(positive, [0.02, 0.995]) if len(positive) else (1, 10)
    norm = LogNorm(low, max(high, low * 1.01), clip=True)
    title = f"{name}: {len(points):,} voxels"
    quantity = "energy" if unit.startswith("MeV") else "charge"
    return Panel(
        title, points, np.maximum(charge, low), _sequential(), norm, f"{quantity} [{unit or 'unknown unit'}]"
    )


def _difference(scene: Scene, called: np.ndarray, true: np.ndarray) -> Panel:
    groups = [called & true, called & ~true, ~called & true]
    points = [scene.candidates[g] for g in groups] + [scene.missed]
    values = np.concatenate([np.full(len(p), k + 0.5) for k, p in enumerate(points)])
    legend = tuple((f"{name}: {len(p):,}", colour) for (name, colour), p in zip(CLASSES, points, strict=True))
    cmap = ListedColormap([colour for _, colour in CLASSES])
    return Panel(
        "difference", np.concatenate(points), values, cmap, Normalize(0, len(CLASSES)), legend=legend
    )


@dataclass(frozen=True)
class Frame:
    """The region drawn, in voxels, and its units: voxel v reaches from v * size + origin to (v + 1) * size + origin."""

    low: np.ndarray
    high: np.ndarray
    size: np.ndarray
    origin: np.ndarray
    unit: str

    @property
    def extent(self) -> np.ndarray:
        """(3,) lengths of the region."""
        return (self.high - self.low) * self.size

    def limits(self, axis: int) -> tuple[float, float]:
        """First and last coordinate along `axis`."""
        first, last = (edge[axis] * self.size[axis] + self.origin[axis] for edge in (self.low, self.high))
        return float(first), float(last)


def draw_scene(scene: Scene, threshold: float, unit: str = "mm") -> Figure:
    """Figure of all panels, every projection at the same scale; `unit` of the axes is "mm" or "cells"."""
    rows = panels(scene, threshold)
    mm = unit == "mm"
    size, origin = (scene.cell, scene.origin) if mm else ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    frame = Frame(*scene.bounds(), np.asarray(size), np.asarray(origin), unit)
    # inches: the tallest projection fills the row
    extent = frame.extent
    scale = min(3.7 / max(extent[:2]), 5.5 / max(extent[[0, 2]]))
    widths = [max(extent[across] * scale, 0.3) for across, _, _ in PROJECTIONS]
    height, space = 4.5, 3.9
    total = space + sum(widths) + 3 * 0.85 + 2.5
    figure = Figure(figsize=(total, height * max(len(rows), 1) + 0.5))
    outside = int((~scene.inside(scene.points)).sum())
    title = scene.title + (f" ({outside} voxels outside the picture)" if outside else "")
    figure.suptitle(title, fontsize=13, y=1 - 0.12 / figure.get_figheight(), va="top")
    if not rows:
        figure.text(0.5, 0.5, "no voxel in this event", ha="center", fontsize=14)
    for row, panel in enumerate(rows):
        bottom = height * (len(rows) - 1 - row)
        _draw_space(_axes(figure, 0.1, bottom + 0.45, space, height - 0.8, projection="3d"), panel, frame)
        left = space + 0.1
        for width, directions in zip(widths, PROJECTIONS, strict=True):
            left += 0.85
            axis = _axes(figure, left, bottom + 0.55, width, max(extent[directions[1]] * scale, 0.3))
            mappable = _draw_projection(axis, panel, directions, frame)
            left += width
        if panel.legend:
            _draw_legend(axis, panel.legend)
        else:
            bar = _axes(figure, left + 0.25, bottom + 0.55, 0.16, 3.7)
            figure.colorbar(mappable, cax=bar, label=panel.label)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float, **options: Any) -> Any:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def _draw_legend(axis: Axes, legend: Sequence[tuple[str, str]]) -> None:
    marks = [Line2D([], [], marker="s", linestyle="", color=colour, label=name) for name, colour in legend]
    axis.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)


def _draw_space(axis: Any, panel: Panel, frame: Frame) -> None:
    """Points in 3-D, beam (z) to the right, drift (x) in depth, y up."""
    order = np.arange(len(panel.points))
    if len(order) > MAX_POINTS:
        order = np.sort(np.random.default_rng(0).choice(order, MAX_POINTS, replace=False))
    at = (panel.points[order] + 0.5) * frame.size + frame.origin
    voxel = frame.size.mean() / max(frame.extent) * 230  # points: about the size of a voxel
    area = max(float(np.clip(30_000 / max(len(order), 1), 0.4, 9)), min(voxel, 6) ** 2)
    axis.scatter(
        at[:, 2], at[:, 0], at[:, 1], c=panel.values[order], s=area, cmap=panel.cmap, norm=panel.norm, marker="s",
        linewidths=0, depthshade=False, rasterized=True,
    )  # fmt: skip
    axis.set(xlim=frame.limits(2), ylim=frame.limits(0), zlim=frame.limits(1))
    wide = frame.extent[1] < max(frame.extent[[0, 2]])
    axis.set_box_aspect(frame.extent[[2, 0, 1]], zoom=0.78 if wide else 0.88)
    axis.set_xlabel(f"z [{frame.unit}]", labelpad=4)
    axis.set_ylabel(f"x [{frame.unit}]", labelpad=4)
    axis.set_zlabel(f"y [{frame.unit}]", labelpad=6)
    axis.tick_params(labelsize=7)
    for name, length in zip("xyz", frame.extent[[2, 0, 1]], strict=True):
        axis.locator_params(axis=name, nbins=4 if length > 0.5 * max(frame.extent) else 2)
    axis.view_init(elev=18, azim=-60)
    axis.set_title(panel.title, fontsize=11)


def _draw_projection(axis: Axes, panel: Panel, directions: tuple[int, int, int], frame: Frame) -> AxesImage:
    across, up, _ = directions
    shown = axis.imshow(
        project(panel.points, panel.values, across, up, frame), origin="lower", aspect="equal", interpolation="nearest",
        extent=(*frame.limits(across), *frame.limits(up)), cmap=panel.cmap, norm=panel.norm,
    )  # fmt: skip
    axis.set_xlabel(f"{AXES[across]} [{frame.unit}]")
    axis.set_ylabel(f"{AXES[up]} [{frame.unit}]")
    box = axis.get_window_extent()
    for side, pixels in ((axis.xaxis, box.width), (axis.yaxis, box.height)):
        inches = pixels / axis.figure.dpi
        side.set_major_locator(MaxNLocator(int(np.clip(inches / 0.5, 1, 6)), steps=[1, 2, 2.5, 5, 10]))
    axis.tick_params(labelsize=8)
    return shown


def project(points: np.ndarray, values: np.ndarray, across: int, up: int, frame: Frame) -> np.ndarray:
    """Image (rows up, columns across) of the largest value in each block, NaN where there is no voxel.

    Blocks are as square as whole voxels allow; an image has about BLOCKS of them along its longest side at most.
    """
    edge = max(frame.extent[across], frame.extent[up]) / BLOCKS
    blocks = [max(1, round(edge / frame.size[a])) for a in (up, across)]
    shape = [-(-int(frame.high[a] - frame.low[a]) // b) for a, b in zip((up, across), blocks, strict=True)]
    image = np.full(shape, -np.inf)
    rows, columns = ((points[:, a] - frame.low[a]) // b for a, b in zip((up, across), blocks, strict=True))
    np.maximum.at(image, (rows, columns), values)
    return np.where(np.isneginf(image), np.nan, image)


def draw_wires(image: WireImage) -> Figure:
    """Channel against tick, the planes side by side; what is outside the regions of interest stays white."""
    width, height = min(image.n_channels, 1280), min(image.n_ticks, 1000)
    picture = np.zeros((height, width), np.float32)
    rows = image.tick.astype(np.int64) * height // image.n_ticks
    columns = image.channel.astype(np.int64) * width // image.n_channels
    np.maximum.at(picture, (rows, columns), image.value)
    high = float(np.quantile(picture[picture > 0], 0.995)) if (picture > 0).any() else 1.0
    figure = Figure(figsize=(15, 8), layout="constrained")
    axis = figure.add_subplot()
    shown = axis.imshow(
        np.where(picture > 0, picture, np.nan), origin="lower", aspect="auto", interpolation="nearest",
        extent=(0, image.n_channels, 0, image.n_ticks), cmap=_sequential(), norm=PowerNorm(0.5, 0, high),
    )  # fmt: skip
    for name, first, last in image.planes:
        axis.axvline(last, color="0.5", linewidth=0.8)
        axis.annotate(
            name, ((first + last) / 2, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=12
        )
    axis.set_xlabel("channel of the APA")
    axis.set_ylabel("tick [0.5 µs]")
    axis.set_title(image.title, pad=24)
    figure.colorbar(shown, label="signal [e / tick]", extend="max", pad=0.01)
    return figure
