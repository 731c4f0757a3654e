"""Parsed files: waveforms (wire, hit) and truth voxels (energy, depo, depoElectron, ...) of one TPC, event by event.

Two containers hold the same content: hpcreco's HDF5 shards, and the original program's compressed npz with
one array per event, ``arr_0 ... arr_{n-1}``. `open_parsed` reads either.

The tables are in `schemas`; `shard` writes them.
"""

from __future__ import annotations

import os
from pathlib import Path

from hpcreco.experiments.protodune.parsed.container import Parsed, ParsedError, TruthVoxels, Waveforms
from hpcreco.experiments.protodune.parsed.npz import NpzParsed
from hpcreco.experiments.protodune.parsed.schemas import (
    CALO,
    NO_TPC,
    PARTICLES,
    TRAJECTORIES,
    TRUTH,
    VALUE_COLUMNS,
    WAVEFORM_PRODUCTS,
    WIRE,
)
from hpcreco.experiments.protodune.parsed.shard import (
    ShardParsed,
    append_truth,
    append_waveform,
    truth_writer,
    wire_writer,
)

__all__ = [
    "CALO",
    "NO_TPC",
    "PARTICLES",
    "TRAJECTORIES",
    "TRUTH",
    "VALUE_COLUMNS",
    "WAVEFORM_PRODUCTS",
    "WIRE",
    "Parsed",
    "ParsedError",
    "ShardParsed",
    "TruthVoxels",
    "Waveforms",
    "append_truth",
    "append_waveform",
    "open_parsed",
    "truth_writer",
    "wire_writer",
]


def open_parsed(path: str | os.PathLike[str], allow_pickle: bool = False) -> Parsed:
    """Open a parsed file, ``.h5`` or legacy ``.npz``. Pickled npz arrays are read only with `allow_pickle`."""
    path = Path(path)
    return NpzParsed(path, allow_pickle) if path.suffix == ".npz" else ShardParsed(path)
