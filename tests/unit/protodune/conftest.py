"""xy files, and yinf files of them, with content the tests know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hpcreco import yinf
from hpcreco.experiments.protodune import EXPERIMENT
from hpcreco.shards import Attribute, Schema, Shard, ShardWriter, Table

SAMPLE_OF_KIND = {
    "str": "",
    "int": 0,
    "float": 0.0,
    "bool": False,
    "ints": [0],
    "floats": [0.0],
    "strs": [""],
}


@dataclass(frozen=True)
class ToyEvent:
    """Candidates (N, 3) with features, labels, scores; all truth (M, 3) with its charge."""

    coords: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    truth_charge: np.ndarray


def toy_event(rng: np.random.Generator, n: int = 400, n_true: int = 40, n_missed: int = 3) -> ToyEvent:
    cells = np.unique(rng.integers(0, 60, (n + 200, 3)), axis=0).astype(np.int32)
    rng.shuffle(cells)
    coords = cells[:n]
    coords = coords[np.lexsort(coords.T[::-1])]
    is_true = np.zeros(n, bool)
    is_true[rng.choice(n, n_true, replace=False)] = True
    labels = np.where(is_true, rng.uniform(6000, 20000, n), 0).astype(np.float32)
    faint = rng.choice(np.flatnonzero(~is_true), 10, replace=False)
    labels[faint] = 1000
    features = (rng.exponential(3000, (n, 3)) + labels[:, None]).astype(np.float32)
    scores = np.where(is_true, rng.beta(5, 2, n), rng.beta(1, 6, n)).astype(np.float32)
    missed = cells[n : n + n_missed]
    truth = np.concatenate([coords[labels > 0], missed])
    charge = np.concatenate([labels[labels > 0], np.full(n_missed, 7000, np.float32)])
    return ToyEvent(coords, features, labels, scores, truth, charge)


def _attributes(schema: Schema, known: dict) -> dict:
    def filler(attribute: Attribute):
        return {} if attribute.kind == "json" else SAMPLE_OF_KIND[attribute.kind]

    return {a.name: known.get(a.name, filler(a)) for a in schema.attributes if a.required or a.name in known}


def _zeros(table: Table) -> dict[str, np.ndarray]:
    widths = {f.name: () if f.columns is None else (len(f.columns) or 3,) for f in table.fields}
    return {f.name: np.zeros(widths[f.name], f.dtype) for f in table.fields}


def write_xy(
    path: Path, events: list[ToyEvent], event_type: str = "Mu", truth: bool = True, **attributes
) -> Path:
    schema = EXPERIMENT.schema("xy")
    known = {
        "event_type": event_type, "feature_names": ["V", "X", "U"], "voxel_size_mm": [6.26, 8.0, 8.0],
        "frame_origin_mm": [0.0, 0.0, 0.0], "downsample": [8, 4, 4], "spatial_shape": [64, 64, 64], "tpc": [1],
        "y_type": "depoElectron", "y_unit": "electrons",
    } | attributes  # fmt: skip
    columns = {"voxels/features": ("V", "X", "U")}
    if truth:
        columns |= {"voxels/labels": ("electrons",), "truth/values": ("electrons",)}
    with ShardWriter(path, schema, _attributes(schema, known), columns) as writer:
        for k, event in enumerate(events):
            tables = {"voxels": {"coords": event.coords, "features": event.features}}
            if truth:
                tables["voxels"]["labels"] = event.labels[:, None]
                tables["truth"] = {"coords": event.truth, "values": event.truth_charge[:, None]}
            tables |= {table.name: _zeros(table) for table in schema.tables if not table.ragged}
            writer.append(10 + k, tables)
    return path


def write_yinf(
    path: Path, xy: Path, events: list[ToyEvent], epoch: int = 3, threshold: float = 0.001, kind="probability"
) -> Path:
    schema = EXPERIMENT.schema("yinf")
    with Shard(xy) as shard:
        known = {
            "experiment": "protodune", "epoch": epoch, "checkpoint_digest": "c0ffee" * 8, "threshold": threshold,
            "input_file": str(xy), "input_digest": shard.digest, "kind": kind,
        }  # fmt: skip
    with ShardWriter(path, schema, _attributes(schema, known)) as writer:
        for k, event in enumerate(events):
            said = (
                {"probability": event.scores} if kind == "probability" else {"charge": event.scores * 20000}
            )
            writer.append(10 + k, {"voxels": {"coords": event.coords, **said}})
    return path


@dataclass(frozen=True)
class ToyRun:
    """A run folder with inference of two event types, and the xy files it is of."""

    folder: Path
    xy: list[Path]
    yinf: list[Path]
    events: dict[str, list[ToyEvent]]


@pytest.fixture
def toy_run(tmp_path: Path) -> Callable[..., ToyRun]:
    """``toy_run(truth=True, epochs=(3,))`` writes two event types with three and one events."""

    def make(truth: bool = True, epochs: tuple[int, ...] = (3,), kind: str = "probability") -> ToyRun:
        rng = np.random.default_rng(11)
        events = {"Mu": [toy_event(rng, n) for n in (400, 300, 350)], "Electron": [toy_event(rng, 500, 20)]}
        xys, yinfs = [], []
        for name, its in events.items():
            xy = write_xy(tmp_path / "xy" / f"batch0-reco_{name}_001_xy-TPC1.h5", its, name, truth)
            xys.append(xy)
            for epoch in epochs:
                path = tmp_path / "run" / "inference" / yinf.file_name(epoch, xy)
                yinfs.append(write_yinf(path, xy, its, epoch, kind=kind))
        return ToyRun(tmp_path / "run", xys, yinfs, events)

    return make
