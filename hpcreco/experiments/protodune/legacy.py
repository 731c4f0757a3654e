"""The original program's xy (npz) and yinf (npy) files <-> hpcreco's shards.

Legacy xy: ``X`` float32 (N, 7) = x, y, z, event in file, three features; ``Y`` float32 (N, 1) labels;
``starts`` the first row of each event; ``Y_truth`` a pickled array of per-event rows (x, y, z, value). We write
the truth as flat ``truth`` rows with their own ``truth_starts``, which need no pickle. Legacy yinf: an array
(1, N, 1) in the rows of the xy file.
"""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, joining, names
from hpcreco.experiments.protodune.geometry import DOWNSAMPLE, N_TICKS, VOXEL_SIZE
from hpcreco.experiments.protodune.parsed import VALUE_COLUMNS
from hpcreco.experiments.protodune.xy import XY
from hpcreco.experiments.protodune.yinf import YINF

LEGACY_THRESHOLD = 1e-3
UNITS = {"energy": "MeV", "electrons": "electrons", "charge": "electrons"}


class LegacyError(RuntimeError):
    """A legacy file cannot be converted; the message names it and the remedy."""

    exit_code = 1


def export_xy(source: Path, path: Path) -> None:
    """Write the legacy npz of an xy shard."""
    rows, labels, truth = [], [], []
    with shards.Shard(source, XY) as shard:
        starts = _starts(shard.rows("voxels"))
        has_labels, has_truth = shard.has("voxels", "labels"), shard.has("truth")
        truth_starts = _starts(shard.rows("truth")) if has_truth else np.zeros(0, np.int64)
        for event in range(shard.n_events):
            table = shard.read(event, "voxels")
            number = np.full((len(table["coords"]), 1), event)
            rows.append(
                np.concatenate([table["coords"], number, table["features"]], axis=1, dtype=np.float32)
            )
            if has_labels:
                labels.append(table["labels"])
            if has_truth:
                cells = shard.read(event, "truth")
                truth.append(np.concatenate([cells["coords"], cells["values"]], axis=1, dtype=np.float32))
    arrays: dict[str, Any] = {"X": _stacked(rows, 7), "starts": starts}
    if has_labels:
        arrays["Y"] = _stacked(labels, 1)
    if has_truth:
        arrays |= {"truth": _stacked(truth, 4), "truth_starts": truth_starts}
    with shards.atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def import_xy(source: Path, path: Path, allow_pickle: bool = False, y_type: str = "depoElectron") -> None:
    """Write the xy shard of a legacy npz, rows in the same order, which its yinf files share.

    `y_type` says what the labels are; the file itself does not.
    """
    arrays = _load_xy(source, allow_pickle)
    table, starts = arrays["X"], np.append(arrays["starts"], len(arrays["X"])).astype(np.int64)
    truth = _truth_of(arrays, len(starts) - 1)
    column = VALUE_COLUMNS[y_type][0]
    attributes = _xy_attributes(
        names.require(source), table.shape[1] - 4, y_type if "Y" in arrays else "none"
    )
    columns = {"voxels/features": tuple(attributes["feature_names"])}
    if "Y" in arrays:
        columns["voxels/labels"] = (column,)
    if truth is not None:
        columns["truth/values"] = (column,)
    with shards.ShardWriter(path, XY, attributes, columns) as writer:
        for event, (low, high) in enumerate(itertools.pairwise(starts.tolist())):
            rows = table[low:high]
            voxels: dict[str, Any] = {"coords": rows[:, :3].astype(np.int32), "features": rows[:, 4:]}
            if "Y" in arrays:
                voxels["labels"] = arrays["Y"][low:high].reshape(-1, 1)
            tables: dict[str, Any] = {"voxels": voxels}
            if truth is not None:
                cells = truth[event]
                tables["truth"] = {
                    "coords": cells[:, :3].astype(np.int32),
                    "values": cells[:, 3:4].astype(np.float32),
                }
            writer.append(event, tables)


def _load_xy(source: Path, allow_pickle: bool) -> dict[str, np.ndarray]:
    try:
        with np.load(source, allow_pickle=allow_pickle) as file:
            arrays = {name: file[name] for name in file.files if name != "Y_truth"}
            if "Y_truth" in file.files:
                arrays["Y_truth"] = file["Y_truth"]
    except (OSError, zipfile.BadZipFile) as error:
        raise LegacyError(f"{source}: not a readable npz file ({error})") from error
    except ValueError as error:
        raise LegacyError(
            f"{source}: its Y_truth is pickled, which can run code; if you trust the file, add --allow-pickle"
        ) from error
    if not {"X", "starts"} <= set(arrays) or arrays["X"].ndim != 2 or arrays["X"].shape[1] < 5:
        raise LegacyError(f"{source}: expected arrays X (N, 7) and starts, found {', '.join(sorted(arrays))}")
    return arrays


def _truth_of(arrays: dict[str, np.ndarray], n_events: int) -> list[np.ndarray] | None:
    """Truth rows (M, 4+) of each event, from either layout."""
    if "truth" in arrays:
        return np.split(arrays["truth"], arrays["truth_starts"].astype(np.int64)[1:])[:n_events]
    if "Y_truth" in arrays:
        return [
            np.asarray(rows, dtype=np.float64) if len(rows) else np.zeros((0, 4))
            for rows in arrays["Y_truth"]
        ]
    return None


def _xy_attributes(name: names.FileName, n_features: int, y_type: str) -> dict[str, Any]:
    """What the original program's files imply: the default grid, all options as it had them."""
    detector = geometry.load()
    tpcs = name.tpcs if name.tpc is None else (name.tpc,)
    voxel_mm = [v * d for v, d in zip(VOXEL_SIZE, DOWNSAMPLE, strict=True)]
    # the original mirrored one cell too far
    frame = joining.frame(detector, tpcs, voxel_mm, legacy_mirror=True) if tpcs else None
    face = frame.faces[0] if frame else None
    alike = face and frame and {other.feature_names for other in frame.faces} == {face.feature_names}
    features = (
        face.feature_names if face and alike and len(face.planes) == n_features else _numbered(n_features)
    )
    n_y, n_z = face.pixels if face else (0, 0)
    shape = [-(-n // d) for n, d in zip((N_TICKS, n_y, n_z), DOWNSAMPLE, strict=True)]
    return {
        "event_type": name.event_type,
        "index": name.index,
        "batch": name.batch or 0,
        "n_batches": 1,
        "tpc": list(tpcs),
        "downsample": list(DOWNSAMPLE),
        "voxel_size_mm": voxel_mm,
        "frame_origin_mm": list(face.r_min) if face else [],
        "spatial_shape": list(frame.shape([shape] * len(tpcs))) if frame else [],
        "feature_names": list(features),
        "x_type": "wire",
        "y_type": y_type,
        "y_unit": UNITS[VALUE_COLUMNS[y_type][0]] if y_type in VALUE_COLUMNS else "",
        "tiling_threshold": LEGACY_THRESHOLD,
        "active_none": True,
        "clip_negative": False,
        "legacy_rounding": True,
        "dead_channels": [],
        "tiling_version": 0,  # the original program
        "geometry": detector.name,
        "geometry_digest": detector.digest,
        "source_digests": [],
        "source_files": [str(name.path)],
        **({"joined": frame.record()} if frame and len(tpcs) > 1 else {}),
    }


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(f"feature{i}" for i in range(n))


def export_yinf(source: Path, path: Path) -> None:
    """Write the legacy array (1, N, 1) of a yinf shard."""
    with shards.Shard(source, YINF) as shard:
        values = shard.read_events(0, shard.n_events, "voxels", ["probability"])["probability"]
    with shards.atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.asarray(values, np.float32).reshape(1, -1, 1), allow_pickle=False)


def xy_of_yinf(source: Path, folder: Path) -> Path:
    """The xy shard a legacy yinf file belongs to, by its name; LegacyError if it is not in `folder`."""
    _, _, rest = source.name.partition("-")
    path = folder / Path(names.replace_product(rest, "xy")).with_suffix(".h5")
    if not path.is_file():
        raise LegacyError(
            f"{source}: its voxels are in {path}, which is not there; name the folder with --xy"
        )
    return path


def import_yinf(source: Path, path: Path, xy_path: Path) -> None:
    """Write the yinf shard of a legacy array, with the coordinates of the xy shard that has the same rows."""
    name = names.require(source)
    values = np.load(source, allow_pickle=False).reshape(-1)
    with shards.Shard(xy_path, XY) as xy:
        rows = xy.rows("voxels")
        if int(rows.sum()) != len(values):
            raise LegacyError(
                f"{source} has {len(values)} rows, {xy_path} {int(rows.sum())}: they do not belong together"
            )
        attributes = {
            "experiment": "protodune",
            "epoch": name.epoch or 0,
            "step": 0,
            "checkpoint": "",
            "checkpoint_digest": "",
            "input_file": str(xy_path),
            "input_digest": xy.digest,
            "backend": "",
            "ranks": 1,
            "kind": "probability",
        } | {key: xy.attributes[key] for key in ("event_type", "index", "batch", "tpc", "downsample")}
        bounds = np.concatenate([[0], np.cumsum(rows)])
        with shards.ShardWriter(path, YINF, attributes) as writer:
            for event in range(xy.n_events):
                table = xy.read(event, "voxels")
                voxels = {"coords": table["coords"], "probability": values[bounds[event] : bounds[event + 1]]}
                if "labels" in table:
                    voxels["labels"] = table["labels"][:, 0]
                writer.append(int(xy.event_ids[event]), {"voxels": voxels})


def _starts(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(rows)])[:-1].astype(np.int64)


def _stacked(parts: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
