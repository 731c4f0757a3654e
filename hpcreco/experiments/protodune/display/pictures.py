"""The figures of voxels: all panels of one event, or several files of the same event side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

from matplotlib.figure import Figure

from hpcreco.experiments.protodune.display import panels as kinds
from hpcreco.experiments.protodune.display.drawing import (
    PROJECTIONS,
    axes,
    draw_legend,
    draw_projection,
    draw_scale,
    draw_space,
)
from hpcreco.experiments.protodune.display.panels import CLASSES, Panel
from hpcreco.experiments.protodune.display.region import Region, region_of
from hpcreco.experiments.protodune.display.scene import Scene


def draw_scene(scene: Scene, threshold: float, region: Region | None = None) -> Figure:
    """A row for each panel of one event: 3-D and the three projections, all at the same scale."""
    rows = kinds.panels(scene, threshold)
    region = region or region_of([scene])
    # inches: the tallest projection fills the row
    extent = region.extent
    scale = min(3.7 / max(extent[:2]), 5.5 / max(extent[[0, 2]]))
    widths = [max(extent[across] * scale, 0.3) for across, _, _ in PROJECTIONS]
    height, space = 4.5, 3.9
    figure = Figure(figsize=(space + sum(widths) + 3 * 0.85 + 2.5, height * max(len(rows), 1) + 0.5))
    outside = int((~region.inside(scene.points)).sum())
    title = scene.title + (f" ({outside:,} voxels outside the picture)" if outside else "")
    figure.suptitle(title, fontsize=13, y=1 - 0.12 / figure.get_figheight(), va="top")
    if not rows:
        figure.text(0.5, 0.5, "no voxel in this event", ha="center", fontsize=14)
    for row, panel in enumerate(rows):
        bottom = height * (len(rows) - 1 - row)
        axis = axes(figure, 0.1, bottom + 0.45, space, height - 0.8, projection="3d")
        draw_space(axis, panel, region, scene.borders)
        _at(figure, 0.25, bottom + height - 0.22, panel.title)
        left = space + 0.1
        for width, directions in zip(widths, PROJECTIONS, strict=True):
            left += 0.85
            axis = axes(figure, left, bottom + 0.55, width, max(extent[directions[1]] * scale, 0.3))
            mappable = draw_projection(axis, panel, directions, region, scene.borders)
            left += width
        if panel.legend:
            draw_legend(axis, panel.legend)
        else:
            bar = axes(figure, left + 0.25, bottom + 0.55, 0.16, 3.7)
            draw_scale(figure, mappable, panel, bar)
    return figure


Column = tuple[str, Panel]
"""A title, which is the file's, and its panel."""


def comparisons(scenes: Sequence[Scene], threshold: float) -> dict[str, list[Column]]:
    """What can be compared, by name: the same picture of every scene, with the same colours and scale.

    "" holds scores (or with truth, right and wrong voxels), "charge" true and predicted charge, "error" their
    difference.
    """
    found: dict[str, list[Column]] = {}
    if all(scene.is_true is not None and scene.judges for scene in scenes):
        found[""] = [(scene.title, kinds.difference(scene, threshold)) for scene in scenes]
    elif all(scene.scores is not None for scene in scenes):
        found[""] = [(scene.title, kinds.by_score(scene, threshold)) for scene in scenes]
    with_charge = [scene for scene in scenes if scene.predicted is not None]
    if with_charge:
        norm = kinds.charge_norm(scenes)
        true = next((s for s in scenes if s.has_truth and s.truth_unit == s.charge_unit), None)
        found["charge"] = [("truth", kinds.true_charge(true, norm))] if true else []
        found["charge"] += [(scene.title, kinds.predicted_charge(scene, norm)) for scene in with_charge]
        judged = [scene for scene in with_charge if scene.is_true is not None] if true else []
        if judged:
            errors = [kinds.charge_error(scene) for scene in judged]
            widest = max(errors, key=lambda panel: panel.norm.vmax or 0).norm
            found["error"] = [(s.title, replace(e, norm=widest)) for s, e in zip(judged, errors, strict=True)]
    return found


def draw_comparison(columns: Sequence[Column], heading: str, region: Region, scene: Scene) -> Figure:
    """A column for each panel; rows are 3-D and the projections. Borders are those of `scene`."""
    extent = region.extent
    scale = min(3.9 / max(extent[[0, 2]]), 4.6 / max(extent[:2]))
    heights = [max(extent[up] * scale, 0.3) for _, up, _ in PROJECTIONS]
    width = max(max(extent[[0, 2]]) * scale, 3.2) + 0.9
    space, gap, top = 3.6, 0.75, 1.15
    size = (width * len(columns) + 1.6, top + space + sum(heights) + gap * len(PROJECTIONS) + 0.2)
    figure = Figure(figsize=size)
    figure.suptitle(heading, fontsize=13, y=1 - 0.12 / size[1], va="top")
    for column, (title, panel) in enumerate(columns):
        left, bottom = column * width + 0.1, size[1] - top - space
        wide = int(width * 12)
        _at(figure, left + 0.1, size[1] - 0.4, fill(title, wide), weight="bold", fontsize=9)
        _at(figure, left + 0.1, size[1] - 0.75, panel.title, fontsize=10)
        axis = axes(figure, left, bottom + 0.2, width - 0.2, space - 0.2, projection="3d")
        draw_space(axis, panel, region, scene.borders)
        for height, directions in zip(heights, PROJECTIONS, strict=True):
            bottom -= height + gap
            axis = axes(figure, left + 0.75, bottom + 0.55, max(extent[directions[0]] * scale, 0.3), height)
            mappable = draw_projection(axis, panel, directions, region, scene.borders)
        if panel.legend:
            _counts(figure, panel, left + 0.75, size[1] - top + 0.02)
    if not panel.legend:
        bar = axes(figure, size[0] - 1.35, size[1] - top - space + 0.3, 0.16, space - 0.6)
        draw_scale(figure, mappable, panel, bar)
    return figure


def _counts(figure: Figure, panel: Panel, left: float, top: float) -> None:
    """The legend of a column, in two lines of two below its title."""
    for k, ((name, _), (_, colour)) in enumerate(zip(panel.legend, CLASSES, strict=True)):
        x, y = left - 0.65 + 2.05 * (k % 2), top - 0.2 * (k // 2)
        _at(figure, x, y, "\u25a0", color=colour, fontsize=8)
        _at(figure, x + 0.13, y, name, fontsize=8)


def _at(figure: Figure, left: float, bottom: float, text: str, **style: object) -> None:
    """Text at a place in inches."""
    across, up = figure.get_size_inches()
    figure.text(left / across, bottom / up, text, **{"fontsize": 11, "va": "top", **style})
