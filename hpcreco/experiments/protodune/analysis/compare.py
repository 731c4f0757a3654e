"""Voxels of other reconstructions (space points, wire-cell imaging) against the same truth, and runs side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpcreco.experiments.protodune import EXPERIMENT, names
from hpcreco.experiments.protodune.analysis.collect import Collected
from hpcreco.experiments.protodune.analysis.cut import Cut
from hpcreco.experiments.protodune.analysis.join import JoinError, find_xy, label_of
from hpcreco.experiments.protodune.analysis.results import network, working_index
from hpcreco.experiments.protodune.analysis.statistics import Statistics
from hpcreco.experiments.protodune.labels import CoarseTruth, coarse, label, missed
from hpcreco.experiments.protodune.parsed import open_parsed
from hpcreco.pages.picture import COLOURS, SIZE, Picture
from hpcreco.shards import Shard

LOG = logging.getLogger("hpcreco")
PRODUCTS = ("spacepoint", "wirecell")
#: fine cells: space points carry no time shift, so they lie 250 us of drift below the readout frame in x
SHIFT = {"spacepoint": 500, "wirecell": 0}


def against_truth(
    yinf_paths: Sequence[Path],
    files: Sequence[Path],
    cut: Cut | None,
    xy_folders: Sequence[Path] = (),
    shift: int | None = None,
) -> list[dict[str, Any]]:
    """A row per event and reference file: voxels, how many are candidates and true, purity, efficiency, charge ratio.

    `shift` fine cells are added to x of the references, by default SHIFT. Files are matched by event type, index and
    event number; efficiency is of all true voxels. Raises JoinError for files of other products.
    """
    references = [names.require(path) for path in files]
    wrong = [name.path for name in references if name.product not in PRODUCTS]
    if wrong:
        raise JoinError(f"{wrong[0]}: --compare takes parsed files of the products {', '.join(PRODUCTS)}")
    rows = []
    for path in yinf_paths:
        with Shard(path, EXPERIMENT.schema("yinf")) as yinf:
            own = cut or Cut(float(yinf.attributes.get("threshold") or 0.0))
            place = find_xy(yinf, xy_folders)
        with Shard(place, EXPERIMENT.schema("xy")) as xy:
            key = (xy.attributes["event_type"], int(xy.attributes["index"]))
            for reference in references:
                if reference.key("event_type", "index") == key:
                    rows += _events(xy, reference, own, shift)
    if not rows:
        raise JoinError("no file of --compare is of the event types and indices of this run")
    seen, inside = (sum(row[n] for row in rows) for n in ("voxels", "candidates"))
    if seen and inside < 0.2 * seen:
        LOG.warning(
            "only %.0f %% of the voxels of --compare are candidates: try another --compare-shift",
            100 * inside / seen,
        )
    return rows


def _events(xy: Shard, reference: names.FileName, cut: Cut, shift: int | None) -> list[dict[str, Any]]:
    rows = []
    what = label_of(xy)
    moved = np.array([SHIFT[reference.product] if shift is None else shift, 0, 0])
    with open_parsed(reference.path) as parsed:
        places = {int(i): k for k, i in enumerate(parsed.event_ids)}
        for number, event_id in enumerate(xy.event_ids):
            if int(event_id) not in places:
                continue
            points = parsed.truth(places[int(event_id)])
            voxels = coarse(points.coords + moved, points.values, xy.attributes["downsample"])
            candidates = xy.read(number, "voxels", ["coords"])["coords"]
            row = {
                "sample": xy.attributes["event_type"], "method": reference.product,
                "event": f"{xy.path.stem}:{event_id}", "voxels": len(voxels.coords),
                "candidates": int((~missed(voxels, candidates)).sum()),
            }  # fmt: skip
            if what is not None and xy.has("truth"):
                truth = xy.read(number, "truth", ["coords", "values"])
                above = truth["values"][:, 0] > cut.against(what)
                row |= _quality(voxels, truth["coords"][above], truth["values"][above])
            rows.append(row)
    return rows


def _quality(voxels: CoarseTruth, cells: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    hits = int((label(voxels.coords, CoarseTruth(cells, np.ones((len(cells), 1), np.float32))) > 0).sum())
    n, total = len(voxels.coords), float(values.sum(dtype=np.float64))
    return {
        "n_T": len(cells),
        "true": hits,
        "purity": hits / n if n else 1.0,
        "efficiency": hits / len(cells) if len(cells) else 1.0,
        "charge_ratio": float(voxels.values[:, 0].sum(dtype=np.float64)) / total if total else float("nan"),
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over events by sample and method."""
    listed = []
    for sample, method in sorted({(r["sample"], r["method"]) for r in rows}):
        own = [r for r in rows if (r["sample"], r["method"]) == (sample, method)]
        row: dict[str, Any] = {"sample": sample, "method": method, "events": len(own)}
        for name in ("voxels", "candidates", "n_T", "true", "purity", "efficiency", "charge_ratio"):
            values = [r[name] for r in own if name in r]
            if values:
                row[name] = float(np.mean(values))
        listed.append(row)
    return listed


def draw_against(samples: Sequence[Statistics], rows: Sequence[dict[str, Any]]) -> Picture:
    """The network's curve with the other methods as points, efficiency of all true voxels."""
    figure = Figure(figsize=(SIZE[0], SIZE[0] + 0.4), layout="constrained")
    axis = figure.add_subplot()
    for k, made in enumerate(samples):
        if not made.sample.has_truth:
            continue
        curve = made.sample.mean(comp_true=True)
        real = curve.efficiency > 0
        axis.plot(
            curve.efficiency[real],
            curve.purity[real],
            ".-",
            color=COLOURS[k],
            label=f"{made.sample.name}: network",
        )
    found = summary(rows)
    for row, marker in zip(found, "sD^v<>pX" * (1 + len(found) // 8), strict=False):
        if "purity" in row:
            axis.plot(row["efficiency"], row["purity"], marker, color="k", markersize=9,
                      label=f"{row['sample']}: {row['method']}")  # fmt: skip
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="efficiency of all true voxels", ylabel="purity")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return Picture(
        figure,
        "Other reconstructions of the same events as points; up and right is better.",
        found,
    )


def run_rows(runs: dict[str, Collected], threshold: float | None) -> list[dict[str, Any]]:
    """The network's figures of each run and sample, mean of events."""
    rows = []
    for name, collected in runs.items():
        for made in collected.samples:
            if not made.sample.has_truth:
                continue
            found = network(made.sample, working_index(made.sample, threshold))[0]
            weighted = made.sample.mean(weighted=True)
            rows.append({
                "sample": made.sample.name, "run": name, "epoch": collected.epoch, "events": made.sample.n_events,
                "auc_pe": found.auc_pe, "auc_pe_by_charge": weighted.auc_pe, "break_even": found.break_even,
                "threshold": found.threshold, "purity": found.purity, "efficiency": found.efficiency,
                "balanced_accuracy": found.balanced_accuracy,
            })  # fmt: skip
    return sorted(rows, key=lambda row: row["sample"])


def draw_runs(runs: dict[str, Collected], sample: str) -> Picture:
    """Mean curves of one sample by each run."""
    figure = Figure(figsize=(SIZE[0], SIZE[0] + 0.4), layout="constrained")
    axis = figure.add_subplot()
    rows = []
    for k, (name, collected) in enumerate(runs.items()):
        for made in collected.samples:
            if made.sample.name != sample or not made.sample.has_truth:
                continue
            curve = made.sample.mean()
            real = curve.efficiency > 0
            label = f"{name}: auc_pe {curve.auc_pe:.3f}, {made.sample.n_events} events"
            axis.plot(
                curve.efficiency[real], curve.purity[real], ".-", color=COLOURS[k % len(COLOURS)], label=label
            )
            rows += [
                {
                    "sample": sample,
                    "run": name,
                    "threshold": float(t),
                    "purity": float(p),
                    "efficiency": float(e),
                }
                for t, p, e in zip(curve.thresholds, curve.purity, curve.efficiency, strict=True)
            ]
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="efficiency", ylabel="purity", title=sample)
    axis.plot([0, 1], [0, 1], color="0.75", linewidth=1, zorder=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="lower left")
    return Picture(figure, f"{sample}: purity and efficiency of each run, mean of events.", rows)


def same_events(runs: dict[str, Collected]) -> bool:
    """Do all runs score the same events?"""
    keys = [{key for made in c.samples for key in made.sample.keys} for c in runs.values()]
    return all(k == keys[0] for k in keys)
