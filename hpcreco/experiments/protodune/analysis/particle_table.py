"""Particles of a sample as rows: who they are, and how well their voxels are found."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from hpcreco.experiments.protodune.analysis.curve import area, purity_efficiency
from hpcreco.experiments.protodune.analysis.particles import BEAM, COSMIC, name_of
from hpcreco.experiments.protodune.analysis.statistics import Statistics

ORIGINS = {BEAM: "beam", COSMIC: "cosmic"}
#: column, label of its axis, edges or number of logarithmic bins
VIEWS = {
    "theta": ("angle to the drift direction [degrees]", np.linspace(0, 180, 13)),
    "phi": ("angle in the (z, y) plane [degrees]", np.linspace(0, 180, 13)),
    "true": ("true cells", 8),
    "kinetic_mev": ("kinetic energy [MeV]", 8),
}
QUALITIES = ("auc_pe", "efficiency", "purity")


def columns(made: Statistics, index: int) -> dict[str, np.ndarray]:
    """Columns (K,) of a sample's particles; efficiency and purity at threshold number `index`. Empty without any."""
    table = made.detail.table("particle")
    if not table:
        return {}
    purity, efficiency = purity_efficiency(table.pop("hist_true"), table.pop("hist_ghost"))
    keys = np.array(made.sample.keys)
    return {
        "event": keys[table.pop("event")],
        **table,
        "auc_pe": area(purity, efficiency),
        "efficiency": efficiency[:, index],
        "purity": purity[:, index],
    }


def rows(made: Statistics, index: int) -> list[dict[str, Any]]:
    """The same, a particle a row."""
    found = columns(made, index)
    if not found:
        return []
    names = list(found)
    listed = [
        dict(zip(names, (v.item() for v in values), strict=True))
        for values in zip(*found.values(), strict=True)
    ]
    for row in listed:
        row["particle"] = name_of(row["pdg"])
        row["origin"] = ORIGINS.get(row["origin"], "")
    return [{"sample": made.sample.name} | row for row in listed]


def by_kind(made: Statistics, index: int) -> list[dict[str, Any]]:
    """Mean figures by PDG code, and by origin where it is known; the most frequent first."""
    found = columns(made, index)
    if not found:
        return []
    groups = [(name_of(pdg), found["pdg"] == pdg) for pdg in np.unique(found["pdg"])]
    groups += [(name, found["origin"] == code) for code, name in ORIGINS.items()]
    listed = []
    for name, chosen in groups:
        if not chosen.any():
            continue
        row: dict[str, Any] = {"sample": made.sample.name, "particle": name, "count": int(chosen.sum())}
        row["per_event"] = row["count"] / max(made.sample.n_events, 1)
        row |= {n: float(found[n][chosen].mean()) for n in ("true", "candidates", *QUALITIES)}
        listed.append(row)
    return sorted(listed, key=lambda row: -row["count"])


def against(made: Statistics, index: int, view: str) -> list[dict[str, Any]]:
    """Means and their errors of auc_pe, efficiency and purity in bins of a column of `VIEWS`."""
    found = columns(made, index)
    if not found:
        return []
    values, bins = found[view].astype(float), VIEWS[view][1]
    known = np.isfinite(values)
    if isinstance(bins, int):
        positive = values[known & (values > 0)]
        if not len(positive):
            return []
        low, high = positive.min(), positive.max()
        bins = np.geomspace(low, max(high * 1.001, low * 1.1), bins + 1)
    place = np.digitize(values, bins) - 1
    listed = []
    for k, (low, high) in enumerate(pairwise(bins)):
        chosen = known & (place == k)
        if not chosen.any():
            continue
        row = {
            "sample": made.sample.name,
            "low": float(low),
            "high": float(high),
            "particles": int(chosen.sum()),
        }
        for name in QUALITIES:
            part = found[name][chosen]
            row |= {name: float(part.mean()), f"{name}_error": float(part.std() / np.sqrt(len(part)))}
        listed.append(row)
    return listed
