"""Parsed products that are neither waveforms nor voxels: calorimetry, trajectories, which tracks are the beam's.

The original program's npz files of them hold pickled lists, which are read with `allow_pickle` only. Written back,
every event is one plain array: calo rows ``object, shower, plane, kinetic energy, x, y, z, dQ/dx, dE/dx, residual
range``, mcbeamcosmic rows ``track id, beam``, mcparticle rows ``track id, points, start x y z, end x y z``; these are
read again without pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import shards
from hpcreco.experiments.protodune.parsed.container import ParsedError
from hpcreco.experiments.protodune.parsed.npz import NpzParsed, import_attributes, write_npz
from hpcreco.experiments.protodune.parsed.schemas import CALO, PARTICLES, TRAJECTORIES
from hpcreco.shards import Schema

SCHEMAS: dict[str, Schema] = {
    "calo": CALO,
    "calonosce": CALO,
    "mcparticle": TRAJECTORIES,
    "mcbeamcosmic": PARTICLES,
}
KINDS = ("Track", "Shower")
Tables = dict[str, dict[str, np.ndarray]]


def import_npz(source: Path, path: Path, extra: Mapping[str, Any], allow_pickle: bool = False) -> None:
    """Write the HDF5 file of a legacy npz. ParsedError names file and event for content that is not the product's."""
    with NpzParsed(source, allow_pickle) as file:
        read = _READ[file.product]
        with shards.ShardWriter(path, SCHEMAS[file.product], import_attributes(file, extra)) as writer:
            for event in range(file.n_events):
                try:
                    tables = read(file.array(event))
                except (ValueError, IndexError, TypeError) as error:
                    raise ParsedError(
                        f"{source}: event {event} is no {file.product} table ({error})"
                    ) from error
                writer.append(event, tables)


def export_npz(source: Path, path: Path) -> None:
    """Write one plain array per event."""
    with shards.Shard(source) as shard:
        rows = _ROWS[shard.attributes["product"]]
        write_npz(path, (rows({t: shard.read(e, t) for t in shard.tables}) for e in range(shard.n_events)))


# ------------------------------------------------------------------------------------------------ calorimetry


def _read_calo(event: np.ndarray) -> Tables:
    if event.dtype != object:
        return _calo_tables(np.asarray(event, float).reshape(-1, 10))
    rows = []
    for number, (kind, plane, energy, points) in enumerate(event):
        if kind not in KINDS or plane not in (0, 1, 2):
            raise ValueError(f"object {number}: a {kind} on plane {plane}, which is unknown")
        points = np.asarray(points, float).reshape(-1, 6)
        head = np.tile([number, KINDS.index(kind), plane, energy], (max(len(points), 1), 1))
        rows.append(np.concatenate([head, points if len(points) else np.full((1, 6), np.nan)], axis=1))
    return _calo_tables(np.concatenate(rows) if rows else np.zeros((0, 10)))


def _calo_tables(rows: np.ndarray) -> Tables:
    """Tables of (N, 10) rows; an object without points is one row of NaN."""
    _, first = np.unique(rows[:, 0], return_index=True)
    heads, points = rows[first], rows[np.isfinite(rows[:, 4])]
    number = np.searchsorted(rows[first, 0], points[:, 0])
    return {
        "objects": {
            "shower": heads[:, 1].astype(np.uint8),
            "plane": heads[:, 2].astype(np.uint8),
            "kinetic_energy": heads[:, 3].astype(np.float32),
        },
        "points": {
            "object": number.astype(np.int32),
            "coords": points[:, 4:7].astype(np.float32),
            "values": points[:, 7:10].astype(np.float32),
        },
    }


def _calo_rows(tables: Tables) -> np.ndarray:
    objects, points = tables["objects"], tables["points"]
    columns = np.stack([objects["shower"], objects["plane"], objects["kinetic_energy"]], axis=1)
    bare = np.setdiff1d(np.arange(len(columns)), points["object"])
    number = np.concatenate([points["object"], bare])
    body = np.concatenate([points["coords"], points["values"]], axis=1)
    body = np.concatenate([body, np.full((len(bare), 6), np.nan)])
    rows = np.concatenate([number[:, None], columns[number], body], axis=1, dtype=np.float64)
    return rows[np.argsort(number, kind="stable")]


# --------------------------------------------------------------------------------- trajectories, beam and cosmic


def _read_trajectories(event: np.ndarray) -> Tables:
    rows = np.asarray(event, float).reshape(-1, 8)
    columns = {
        "track_id": rows[:, 0].astype(np.int32),
        "points": rows[:, 1].astype(np.int32),
        "start": rows[:, 2:5].astype(np.int32),
        "end": rows[:, 5:8].astype(np.int32),
    }
    return {"trajectories": columns}


def _trajectory_rows(tables: Tables) -> np.ndarray:
    t = tables["trajectories"]
    return np.column_stack([t["track_id"], t["points"], t["start"], t["end"]]).astype(np.float64)


def _read_beam_cosmic(event: np.ndarray) -> Tables:
    if event.dtype == object or event.ndim != 2 or event.shape[1] != 2:
        beam, cosmic = (np.asarray(ids, np.int32).reshape(-1) for ids in event)
        ids, flags = np.concatenate([beam, cosmic]), np.repeat([1, 0], [len(beam), len(cosmic)])
    else:
        ids, flags = event[:, 0].astype(np.int32), event[:, 1]
    return {"particles": {"track_id": ids, "beam": flags.astype(np.uint8)}}


def _beam_cosmic_rows(tables: Tables) -> np.ndarray:
    return np.column_stack([tables["particles"]["track_id"], tables["particles"]["beam"]]).astype(np.float64)


_READ: dict[str, Callable[[np.ndarray], Tables]] = {
    "calo": _read_calo,
    "calonosce": _read_calo,
    "mcparticle": _read_trajectories,
    "mcbeamcosmic": _read_beam_cosmic,
}
_ROWS: dict[str, Callable[[Tables], np.ndarray]] = {
    "calo": _calo_rows,
    "calonosce": _calo_rows,
    "mcparticle": _trajectory_rows,
    "mcbeamcosmic": _beam_cosmic_rows,
}
