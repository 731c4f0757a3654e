"""Statistics of one file, kept in a file of their own so that a report need not read voxels twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import shards
from hpcreco.experiments.protodune.analysis.baselines import N_CUTS, Scan
from hpcreco.experiments.protodune.analysis.detail import Detail
from hpcreco.experiments.protodune.analysis.sample import ARRAYS, Sample
from hpcreco.experiments.protodune.analysis.statistics import VERSION, Statistics
from hpcreco.shards import Attribute, Schema

STATISTICS = Schema(
    "hpcreco/protodune/statistics",
    VERSION,
    attributes=(
        Attribute("fingerprint", "str"),
        Attribute("kind", "str"),
        Attribute("name", "str"),
        Attribute("keys", "strs"),
        Attribute("features", "strs"),
        Attribute("scans", "strs"),
        Attribute("meaning", "str"),
        Attribute("unit", "str"),
        Attribute("all_truth", "bool"),
        Attribute("missed_known", "bool"),
    ),
)


def write(path: Path, made: Statistics, fingerprint: str) -> None:
    """Keep the statistics of one file."""
    sample = made.sample
    arrays: dict[str, Any] = {f"sample_{n}": np.array(getattr(sample, n)) for n in ARRAYS}
    for part in ("purity", "efficiency"):
        table = np.array([getattr(scan, part) for scan in sample.scans.values()]).reshape(-1, N_CUTS)
        first, last = _changing(table)
        arrays[f"scan_{part}"], arrays[f"scan_{part}_first"] = table[:, first : last + 1], np.array(first)
    arrays |= {f"detail_{n}": a for n, a in made.detail.arrays.items()}
    attributes = {
        "fingerprint": fingerprint, "kind": made.kind, "name": sample.name, "keys": sample.keys, "unit": made.unit,
        "features": list(sample.feature_names), "scans": list(sample.scans), "meaning": made.meaning,
        "all_truth": sample.comp_true, "missed_known": sample.missed_known,
    }  # fmt: skip
    shards.write_artefact(path, STATISTICS, attributes, arrays)


def _changing(table: np.ndarray) -> tuple[int, int]:
    """First and last column of the part outside of which rows (n, N_CUTS) are constant."""
    changes = np.flatnonzero((np.diff(table, axis=1) != 0).any(0))
    return (int(changes[0]), int(changes[-1]) + 1) if len(changes) else (0, 0)


def read(path: Path) -> tuple[Statistics, str]:
    """Statistics and their fingerprint. Raises ShardError for a file that is none."""
    found = shards.read_artefact(path, STATISTICS)
    a = found.attributes
    sample = Sample(
        a["name"], tuple(a["features"]), bool(a["all_truth"]), keys=list(a["keys"]),
        **{n: list(found.arrays[f"sample_{n}"]) for n in ARRAYS}, missed_known=bool(a["missed_known"]),
    )  # fmt: skip
    for name in ("missed", "missed_charge"):
        setattr(sample, name, found.arrays[f"sample_{name}"].tolist())
    for number, name in enumerate(a["scans"]):
        parts = []
        for part in ("purity", "efficiency"):
            row, first = found.arrays[f"scan_{part}"][number], int(found.arrays[f"scan_{part}_first"].flat[0])
            parts.append(np.pad(row, (first, N_CUTS - first - len(row)), mode="edge"))
        sample.scans[name] = Scan(len(sample.keys), *parts)
    prefix = "detail_"
    detail = Detail(
        {n.removeprefix(prefix): array for n, array in found.arrays.items() if n.startswith(prefix)}
    )
    return Statistics(a["kind"], sample, detail, a["meaning"], a["unit"]), a["fingerprint"]
