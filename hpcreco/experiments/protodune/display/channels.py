"""Waveforms of one event as images, channel against tick, and voxels projected onto the wires that see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from hpcreco.experiments.protodune.display.panels import CLASSES, sequential
from hpcreco.experiments.protodune.display.region import Region
from hpcreco.experiments.protodune.display.scene import Scene, WireImage
from hpcreco.experiments.protodune.geometry import DRIFT_PER_TICK, PIXEL_SIZE, Face, WirePlane

OVERLAYS = (
    ("candidate only", "#C9CED6"),
    CLASSES[1],
    ("true, called true", CLASSES[0][1]),
    CLASSES[2],
    CLASSES[3],
)
"""Classes of a sample by the voxels on its wire, the faintest first: a later one hides those before it, except that
a voxel rightly called true explains a sample whatever else is there."""
TICKS, CHANNELS = 1000, 1280
"""Largest numbers of pixels of an image."""


@dataclass(frozen=True)
class Window:
    """The channels and ticks drawn."""

    channels: tuple[int, int]
    ticks: tuple[int, int]


def draw_wires(
    image: WireImage, scenes: Sequence[Scene] = (), face: Face | None = None, threshold: float = 0.35,
    region: Region | None = None,
) -> Figure:  # fmt: skip
    """Channel against tick, the planes side by side; what is outside the regions of interest stays white.

    Below it, one image per scene of the voxels that each sample could come from, which needs the `face` that saw them.
    """
    rows = 1 + (len(scenes) if face is not None else 0)
    figure = Figure(figsize=(15, 0.6 + 5.6 * rows if rows > 1 else 8), layout="constrained")
    window = _window(image, region, scenes[0].cell[0] if scenes else DRIFT_PER_TICK)
    axes = figure.subplots(rows, 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    _draw_samples(figure, axes[0], image, window)
    axes[0].set_title(image.title, pad=24)
    for axis, scene in zip(axes[1:], scenes, strict=False):
        assert face is not None
        _draw_overlay(axis, image, scene, face, threshold, window, region)
    axes[-1].set_xlabel("channel of the APA")
    return figure


def _window(image: WireImage, region: Region | None, cell_mm: float) -> Window:
    """All of the readout, or the ticks of a region of cells `cell_mm` along drift.

    Channels stay: those that see a region are scattered by the wrapping of the wires.
    """
    if region is None:
        return Window((0, image.n_channels), (0, image.n_ticks))
    first, last = (round(float(edge) * cell_mm / DRIFT_PER_TICK) for edge in (region.low[0], region.high[0]))
    return Window((0, image.n_channels), (max(first, 0), min(last, image.n_ticks)))


def _pixels(image: WireImage, window: Window) -> tuple[int, int]:
    ticks, channels = window.ticks[1] - window.ticks[0], image.n_channels
    return min(ticks, TICKS), min(channels, CHANNELS)


def _draw_samples(figure: Figure, axis: Axes, image: WireImage, window: Window) -> None:
    inside = (image.tick >= window.ticks[0]) & (image.tick < window.ticks[1])
    height, width = _pixels(image, window)
    picture = np.zeros((height, width), np.float32)
    rows = (
        (image.tick[inside].astype(np.int64) - window.ticks[0])
        * height
        // (window.ticks[1] - window.ticks[0])
    )
    columns = image.channel[inside].astype(np.int64) * width // image.n_channels
    np.maximum.at(picture, (rows, columns), image.value[inside])
    high = float(np.quantile(picture[picture > 0], 0.995)) if (picture > 0).any() else 1.0
    shown = _show(
        axis, image, window, np.where(picture > 0, picture, np.nan), sequential(), PowerNorm(0.5, 0, high)
    )
    for name, first, last in image.planes:
        axis.annotate(
            name, ((first + last) / 2, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=12
        )
    if image.dead:
        axis.plot([], [], color="0.8", linewidth=3, label=f"{len(image.dead)} dead channels")
        axis.legend(loc="upper right", frameon=True, fontsize=9)
    figure.colorbar(shown, ax=axis, label="signal [e / tick]", extend="max", pad=0.01)


def _show(
    axis: Axes, image: WireImage, window: Window, picture: np.ndarray, cmap: Colormap, norm: Normalize
) -> AxesImage:
    for first, last in _runs(image.dead):
        axis.axvspan(first, last, color="0.88", linewidth=0)
    shown = axis.imshow(
        picture, origin="lower", aspect="auto", interpolation="nearest", cmap=cmap, norm=norm, zorder=2,
        extent=(*window.channels, *window.ticks),
    )  # fmt: skip
    for _, _, last in image.planes[:-1]:
        axis.axvline(last, color="0.5", linewidth=0.8)
    axis.set_ylabel("tick [0.5 µs]")
    return shown


def _runs(channels: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges [first, last) of neighbouring numbers, which are sorted."""
    runs: list[tuple[int, int]] = []
    for channel in channels:
        if runs and runs[-1][1] == channel:
            runs[-1] = (runs[-1][0], channel + 1)
        else:
            runs.append((channel, channel + 1))
    return runs


def _draw_overlay(
    axis: Axes, image: WireImage, scene: Scene, face: Face, threshold: float, window: Window, region: Region | None
) -> None:  # fmt: skip
    groups = overlay_groups(scene, threshold)
    dx = scene.cell[0] / DRIFT_PER_TICK
    height = max(1, round((window.ticks[1] - window.ticks[0]) / dx))
    picture = np.full((height, image.n_channels), np.nan)
    for rank, points in enumerate(groups):
        shown = points if region is None else points[region.inside(points)]
        for plane in face.planes:
            row, channel = on_wires(shown, scene.cell, plane)
            row = row - round(window.ticks[0] / dx)
            inside = (row >= 0) & (row < height)
            picture[row[inside], channel[inside]] = rank + 0.5
    cmap = ListedColormap([colour for _, colour in OVERLAYS])
    _show(axis, image, window, picture, cmap, Normalize(0, len(OVERLAYS)))
    axis.set_title(scene.title, fontsize=11, pad=26)
    names = [
        (f"{name}: {len(p):,} voxels", c) for (name, c), p in zip(OVERLAYS, groups, strict=True) if len(p)
    ]
    marks = [Line2D([], [], marker="s", linestyle="", color=colour, label=name) for name, colour in names]
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(OVERLAYS)}
    axis.legend(handles=marks, frameon=False, fontsize=9, borderaxespad=0.3, **place)


def overlay_groups(scene: Scene, threshold: float) -> list[np.ndarray]:
    """Voxels (n, 3) of each of OVERLAYS."""
    none = np.zeros((0, 3), np.int32)
    called = scene.called(threshold) if scene.judges else np.zeros(len(scene.candidates), bool)
    if scene.is_true is None:
        return [scene.candidates[~called], none, scene.candidates[called], none, scene.missed]
    true = scene.is_true
    if not scene.judges:  # nothing was called: true candidates are what can be told
        return [scene.candidates[~true], none, scene.candidates[true], none, scene.missed]
    return [
        scene.candidates[~called & ~true],
        scene.candidates[called & ~true],
        scene.candidates[called & true],
        scene.candidates[~called & true],
        scene.missed,
    ]


def on_wires(cells: np.ndarray, cell_mm: Sequence[float], plane: WirePlane) -> tuple[np.ndarray, np.ndarray]:
    """Drift index and channel of every wire of a plane whose strip meets a cell (n, 3); several per cell."""
    e_z, e_y = plane.direction
    size_y, size_z = cell_mm[1] / PIXEL_SIZE, cell_mm[2] / PIXEL_SIZE
    along = e_z * cells[:, 2] * size_z + e_y * cells[:, 1] * size_y
    low = along + min(0.0, e_z * size_z) + min(0.0, e_y * size_y)
    high = along + max(0.0, e_z * size_z) + max(0.0, e_y * size_y)
    edge = plane.offset - plane.pitch / 2
    first = np.floor((low - edge) / plane.pitch + 1e-9).astype(np.int64)
    last = np.ceil((high - edge) / plane.pitch - 1e-9).astype(np.int64) - 1
    x, channel = [], []
    for step in range(int((last - first).max(initial=0)) + 1):
        wire = first + step
        met = (wire <= last) & (wire >= 0) & (wire < plane.n_wires)
        x.append(cells[met, 0])
        channel.append(plane.channels[wire[met]])
    return np.concatenate(x), np.concatenate(channel)
