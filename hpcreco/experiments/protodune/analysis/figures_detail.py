"""Pictures of segments, particles, distances of errors, and missing charge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpcreco.experiments.protodune.analysis import detail_tables, distances, particle_table
from hpcreco.experiments.protodune.analysis.statistics import Statistics
from hpcreco.pages.picture import COLOURS, SIZE, Picture, plain_ticks

Chosen = Sequence[tuple[Statistics, int]]
"""Samples with the number of their working threshold."""


def draw_segments(made: Statistics, index: int) -> Picture | None:
    """Map of auc_pe over the (z, y) plane."""
    rows = detail_tables.segments(made, index)
    if not rows:
        return None
    n_y, n_z = 1 + max(r["y"] for r in rows), 1 + max(r["z"] for r in rows)
    value = np.array([r["auc_pe"] for r in rows], float).reshape(n_y, n_z)
    figure = Figure(figsize=(max(SIZE[0], 0.75 * n_z + 1.6), 3.2), layout="constrained")
    axis = figure.add_subplot()
    image = axis.imshow(value, origin="lower", cmap="cividis", aspect="auto", vmin=min(0.5, np.nanmin(value)) if
                        np.isfinite(value).any() else 0, vmax=1)  # fmt: skip
    for y, z in np.ndindex(value.shape):
        if np.isfinite(value[y, z]):
            dark = value[y, z] > 0.8
            axis.text(z, y, f"{value[y, z]:.3f}", ha="center", va="center", color="k" if dark else "w")
    axis.set(xticks=range(n_z), yticks=range(n_y), xlabel="z segment (576 mm each)", ylabel="y half",
             title=f"{made.sample.name}: auc_pe by segment")  # fmt: skip
    axis.set_yticklabels(["lower", "upper"][:n_y])
    figure.colorbar(image)
    return Picture(
        figure,
        "Area under purity-efficiency in parts of the wire plane, events pooled. A part that stands out points to dead "
        "channels or to a sample that differs from the training's. Empty: no true voxel there.",
        (),
    )


def draw_kinds(chosen: Chosen) -> Picture | None:
    """Distribution of auc_pe by kind of particle."""
    rows = [row for made, index in chosen for row in particle_table.by_kind(made, index)]
    if not rows:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.add_subplot()
    found: dict[str, list[float]] = {}
    for made, index in chosen:
        for row in particle_table.rows(made, index):
            found.setdefault(row["particle"], []).append(row["auc_pe"])
    kinds = sorted(found, key=lambda k: -len(found[k]))[: len(COLOURS)]
    edges = np.linspace(0, 1, 26)
    for kind, colour in zip(kinds, COLOURS, strict=False):
        values = np.clip(found[kind], 0, 1 - 1e-9)
        label = f"{kind}: {len(values)}, mean {np.mean(values):.3f}"
        axis.hist(values, edges, histtype="step", linewidth=1.8, color=colour, label=label)
    axis.set(xlabel="auc_pe of one particle", ylabel="particles", xlim=(0, 1), title="particles by kind")
    axis.legend(loc="upper left")
    axis.grid(alpha=0.3)
    return Picture(
        figure,
        "How well single particles are found: each with the candidates nearest to its true cells (at least 20 true "
        "cells and 50 candidates). Showers are harder than tracks.",
        rows,
    )


def draw_against(chosen: Chosen, view: str) -> Picture | None:
    """Mean auc_pe, efficiency and purity of particles against one of their properties."""
    rows = [row for made, index in chosen for row in particle_table.against(made, index, view)]
    if not rows:
        return None
    label, bins = particle_table.VIEWS[view]
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.add_subplot()
    for number, (made, _) in enumerate(chosen):
        own = [row for row in rows if row["sample"] == made.sample.name]
        middle = np.array([(r["low"] + r["high"]) / 2 for r in own])
        for style, name in zip(("o-", "s--", "^:"), particle_table.QUALITIES, strict=True):
            colour = COLOURS[number if len(chosen) > 1 else particle_table.QUALITIES.index(name)]
            said = f"{made.sample.name} {name}" if len(chosen) > 1 else name
            values, errors = ([r[key] for r in own] for key in (name, f"{name}_error"))
            axis.errorbar(middle, values, errors, fmt=style, color=colour, markersize=4, label=said)
    axis.set(xlabel=label, ylim=(None, 1.02), ylabel="mean of particles")
    if isinstance(bins, int):
        axis.set_xscale("log")
        plain_ticks(axis.xaxis)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    told = {
        "theta": "At 90 degrees a track is parallel to the wire planes: many wires see it at the same time, and ghosts "
        "abound.",
        "phi": "Direction within the wire planes: 0 and 180 along the beam, 90 up, as the X wires run; 54 and 126 as "
        "U and V run.",
        "true": "Small particles have few voxels to be recognised by.",
        "kinetic_mev": "Kinetic energy where the particle starts, from the particles table.",
    }[view]
    return Picture(figure, f"{told} Bars: error of the mean.", rows)


def draw_distances(made: Statistics, index: int) -> Picture | None:
    """Distances of false negatives and false positives."""
    rows = detail_tables.error_distances(made, index)
    if not rows:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.add_subplot()
    edges = np.append(distances.EDGES, 250)
    near = detail_tables.near_shares(made, index)
    lines = {"false_negatives": "missed, to nearest ghost", "false_positives": "kept ghosts, to nearest true"}
    for (name, said), colour in zip(lines.items(), COLOURS, strict=False):
        counts = np.array([r[name] for r in rows], float)
        share = counts / max(counts.sum(), 1)
        axis.stairs(np.cumsum(share), edges, color=colour, linewidth=1.8, baseline=None,
                    label=f"{said}: {near[name]:.0%} below 2")  # fmt: skip
    axis.axvline(distances.NEAR, color="k", linestyle="--", linewidth=1)
    axis.set(xscale="symlog", xlim=(0, 200), ylim=(0, 1.02), xlabel="distance [cells]", ylabel="share of errors below",
             title=f"{made.sample.name}: where errors lie")  # fmt: skip
    axis.legend(loc="lower right", fontsize=9)
    axis.grid(alpha=0.3)
    return Picture(
        figure,
        "Errors next to the boundary between true and ghost voxels (left of the dashed line) blur a track; far ones "
        "lose or invent tracks.",
        (),
    )


def draw_missing(made: Statistics, index: int) -> Picture | None:
    """True voxels by their charge, and those that are lost."""
    rows = detail_tables.missing_charge(made, index)
    if not any(row["true_cells"] for row in rows):
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axis: Any = figure.add_subplot()
    edges = np.append([r["electrons_from"] for r in rows], rows[-1]["electrons_from"] * 1.5)
    n = max(made.sample.n_events, 1)
    styles = {"true_cells": ("0.35", "all true"), "called_ghost": (COLOURS[1], "called ghost"),
              "missed_by_tiling": (COLOURS[0], "missed by tiling")}  # fmt: skip
    for name, (colour, label) in styles.items():
        counts = np.array([r[name] for r in rows]) / n
        axis.stairs(counts, edges, color=colour, linewidth=1.8, label=label)
    axis.set(xscale="log", yscale="log", xlabel="true charge of a voxel [electrons]", ylabel="voxels per event",
             title=f"{made.sample.name}: missing charge")  # fmt: skip
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    return Picture(
        figure,
        "True voxels by the charge they hold, and those that are lost on the way. Losses at small charge cost little; "
        "losses at large charge are holes in tracks. Energies are converted at 29,600 electrons per MeV.",
        (),
    )
