"""Segments, distances of errors and missing charge of a sample as rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from hpcreco.experiments.protodune.analysis import charge, distances
from hpcreco.experiments.protodune.analysis.curve import area, purity_efficiency
from hpcreco.experiments.protodune.analysis.statistics import Statistics


def segments(made: Statistics, index: int) -> list[dict[str, Any]]:
    """Per (y, z) segment: voxels, auc_pe of all events pooled, efficiency and purity at threshold number `index`."""
    a = made.detail.arrays
    if "segment_true" not in a:
        return []
    true, ghost, missed = (a[f"segment_{n}"].sum(0) for n in ("true", "ghost", "missed"))
    outside = missed * made.sample.comp_true
    purity, efficiency = purity_efficiency(true, ghost, outside)
    found = area(purity, efficiency)
    listed = []
    for y, z in np.ndindex(true.shape[:2]):
        n_true, n_ghost = int(true[y, z].sum()), int(ghost[y, z].sum())
        some = n_true > 0
        listed.append({
            "sample": made.sample.name, "y": y, "z": z, "events": made.sample.n_events,
            "n_T": n_true + int(missed[y, z]), "n_TP_naive": n_true, "n_FP_naive": n_ghost,
            "auc_pe": float(found[y, z]) if some else float("nan"),
            "efficiency": float(efficiency[y, z, index]) if some else float("nan"),
            "purity": float(purity[y, z, index]) if some else float("nan"),
        })  # fmt: skip
    return listed


def error_distances(made: Statistics, index: int) -> list[dict[str, Any]]:
    """Per bin of distance: false negatives (to the nearest ghost) and false positives (to the nearest true cell)."""
    a = made.detail.arrays
    if "to_ghost" not in a:
        return []
    negative = distances.called_ghost(a["to_ghost"], index)
    positive = distances.called_true(a["to_true"], index)
    return [
        {
            "sample": made.sample.name,
            "from_cells": float(edge),
            "false_negatives": int(n),
            "false_positives": int(p),
        }
        for edge, n, p in zip(distances.EDGES, negative, positive, strict=True)
    ]


def near_shares(made: Statistics, index: int) -> dict[str, float]:
    """Share of false negatives and of false positives nearer than two cells."""
    a = made.detail.arrays
    return {
        "false_negatives": distances.share_near(distances.called_ghost(a["to_ghost"], index)),
        "false_positives": distances.share_near(distances.called_true(a["to_true"], index)),
    }


def missing_charge(made: Statistics, index: int) -> list[dict[str, Any]]:
    """Per bin of a true cell's charge: all cells, those that tiling lost, those that the network calls ghost."""
    a = made.detail.arrays
    if "charge_kept" not in a:
        return []
    lost = a["charge_kept"][:, : index + 1].sum(1)
    everything = a["charge_kept"].sum(1) + a["charge_missed"]
    return [
        {"sample": made.sample.name, "electrons_from": float(q), "true_cells": int(n), "missed_by_tiling": int(m),
         "called_ghost": int(k), "share_missing": float((m + k) / n) if n else float("nan")}
        for q, n, m, k in zip(charge.CHARGES, everything, a["charge_missed"], lost, strict=True)
    ]  # fmt: skip


def charge_events(made: Statistics) -> list[dict[str, Any]]:
    """Per event: true and measured charge, their ratio, bias and RMS of the voxels."""
    table = made.detail.table("charge")
    listed = []
    for k in range(len(table.get("event", ()))):
        row = {n: float(table[n][k]) for n in ("true", "measured", "on_true", "voxels", "sum", "squares")}
        found = charge.from_sums(row["voxels"], row["sum"], row["squares"], np.zeros(len(charge.EDGES) + 1))
        true = row["true"]
        ratio = row["measured"] / true if true else float("nan")
        listed.append({
            "sample": made.sample.name, "event": made.sample.keys[int(table["event"][k])], "true": true,
            "measured": row["measured"], "ratio": ratio, "voxels": found.n, "bias": found.bias, "rms": found.rms,
        })  # fmt: skip
    return listed


def charge_particles(made: Statistics) -> list[dict[str, Any]]:
    """Per particle: true and measured charge and their ratio."""
    from hpcreco.experiments.protodune.analysis.particles import name_of

    table = made.detail.table("measured")
    return [
        {"sample": made.sample.name, "event": made.sample.keys[int(e)], "track_id": int(t), "pdg": int(p),
         "particle": name_of(p), "true": float(q), "measured": float(m), "ratio": float(m / q)}
        for e, t, p, q, m in zip(*(table[n] for n in ("event", "track_id", "pdg", "true", "charge")), strict=True)
    ] if table else []  # fmt: skip


def charge_summary(made: Statistics) -> list[dict[str, Any]]:
    """Bias, RMS, half width of the central 68 % of voxels, events and particles, and the ratio of all sums."""
    table = made.detail.table("charge")
    if not table:
        return []
    counts = made.detail.arrays["residuals"].sum(0)
    voxels = charge.from_sums(table["voxels"].sum(), table["sum"].sum(), table["squares"].sum(), counts)
    events = charge.summarise(charge.residuals(table["measured"], table["true"]))
    measured = made.detail.table("measured")
    found = {"voxels": voxels, "events": events}
    ratios = {
        "events": float(table["measured"].sum() / table["true"].sum())
        if table["true"].sum()
        else float("nan")
    }
    total = table["true"].sum()
    ratios["voxels"] = float(table["on_true"].sum() / total) if total else float("nan")
    if measured:
        found["particles"] = charge.summarise(charge.residuals(measured["charge"], measured["true"]))
        ratios["particles"] = float(measured["charge"].sum() / measured["true"].sum())
    return [
        {"sample": made.sample.name, "of": name, "n": r.n, "bias": r.bias, "median": r.median, "rms": r.rms,
         "half_width_68": r.half_width_68, "sum_ratio": ratios[name]}
        for name, r in found.items()
    ]  # fmt: skip


def dqdx(made: Statistics, edges: np.ndarray, pdg: int = 13) -> list[dict[str, Any]]:
    """Median dQ/dx of truth and measurement in bins of residual range (mm), of tracks of one kind, all of
    them and those whose true dQ/dx rises at the end, as that of stopping ones does.
    """
    table = made.detail.table("piece")
    if not table:
        return []
    chosen = np.abs(table["pdg"]) == pdg
    stops = stopping(table) & chosen
    listed = []
    for name, mask in (("all", chosen), ("stopping", stops)):
        place = np.digitize(table["range"], edges) - 1
        for k, (low, high) in enumerate(pairwise(edges)):
            here = mask & (place == k)
            if here.sum() < 3:
                continue
            true, measured = (float(np.median(table[n][here])) for n in ("true", "measured"))
            listed.append({
                "sample": made.sample.name, "tracks": name, "range_from": float(low), "range_to": float(high),
                "pieces": int(here.sum()), "true": true, "measured": measured,
                "ratio": measured / true if true else float("nan"),
            })  # fmt: skip
    return listed


def stopping(table: dict[str, np.ndarray], last: float = 60.0, rise: float = 1.3) -> np.ndarray:
    """Mask of the pieces of tracks with, in their last `last` mm, `rise` times the median dQ/dx of the rest."""
    number = np.unique(np.stack([table["event"], table["track_id"]], 1), axis=0, return_inverse=True)[
        1
    ].reshape(-1)
    mask = np.zeros(len(number), bool)
    for track in range(number.max() + 1 if len(number) else 0):
        own = number == track
        end = own & (table["range"] < last)
        rest = own & ~end
        if end.sum() >= 2 and rest.sum() >= 5:
            mask |= own & (np.median(table["true"][end]) > rise * np.median(table["true"][rest]))
    return mask
