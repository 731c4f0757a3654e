"""Geometry files of real and simulated arrays.

They say where DOMs hang, some how well they see; the noise rates are nominal: 5.5e-7/ns, more for DOMs that see more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpcreco.experiments.icecube.detector import Detector, DetectorError

STANDARD_NOISE = 5.5e-7  # 1/ns
_TABLE = ("string", "dom_number", "dom_x", "dom_y", "dom_z", "rde")


def read(paths: Sequence[Path]) -> Detector:
    """The array of a file, or of a positions file and a table of good DOMs with their efficiencies."""
    if len(paths) > 2:
        raise DetectorError(f"{', '.join(map(str, paths))}: give one file of positions and at most one table")
    if len(paths) == 1 and paths[0].suffix == ".parquet":
        return _from_table(paths[0])
    array = _from_text(paths[0])
    return array if len(paths) == 1 else _with_table(array, paths[1])


def _from_text(path: Path) -> Detector:
    """`string om x y z` per line, or Prometheus' `x y z string om` behind the line `### Modules ###`."""
    try:
        text = path.read_text()
        prometheus = "### Modules ###" in text
        lines = text.partition("### Modules ###")[2] if prometheus else text
        rows = np.array([line.split() for line in lines.splitlines() if line.strip()], float)
    except (ValueError, UnicodeDecodeError) as error:
        raise DetectorError(f"{path}: not a table of DOMs ({error})") from error
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise DetectorError(f"{path}: expected five columns: string om x y z (.geo: x y z string om)")
    if prometheus:
        rows = rows[:, [3, 4, 0, 1, 2]]
        z = rows[:, 4]
        if z.min() > 0 or z.max() < 0:  # measured from the surface
            rows[:, 4] -= (z.min() + z.max()) / 2
    return grid(rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2:], np.ones(len(rows)), str(path))


def grid(
    string: np.ndarray, om: np.ndarray, position: np.ndarray, efficiency: np.ndarray, where: str
) -> Detector:
    """A detector of DOMs in any order, string and om counting from 0 or from 1; gaps are filled with dead DOMs.

    A missing DOM stands between its neighbours on the string, or where the nearest one is.
    """
    string, om = string - string.min(), om - om.min()
    shape = (int(string.max()) + 1, int(om.max()) + 1)
    flat = string * shape[1] + om
    if len(np.unique(flat)) < len(flat):
        raise DetectorError(f"{where}: some DOM occurs twice")
    empty = sorted(set(range(shape[0])) - set(string.tolist()))
    if empty:
        raise DetectorError(f"{where}: string {empty[0] + 1} has no DOM; number the strings without gaps")
    positions = np.empty((*shape, 3))
    known = np.zeros(shape, bool)
    known.reshape(-1)[flat] = True
    positions.reshape(-1, 3)[flat] = position
    efficiencies = np.zeros(shape)
    efficiencies.reshape(-1)[flat] = efficiency
    every = np.arange(shape[1])
    for s in np.flatnonzero(~known.all(axis=1)):
        for axis in range(3):
            positions[s, :, axis] = np.interp(every, every[known[s]], positions[s, known[s], axis])
    noise = np.where(known, STANDARD_NOISE * efficiencies, 0.0)
    return Detector(positions, efficiencies, noise, ~known, name=Path(where).name)


def _table(path: Path) -> dict[str, np.ndarray]:
    """In-ice DOMs of a graphnet geometry table: surface DOMs have numbers above 60, dead ones no efficiency."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=list(_TABLE)).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise DetectorError(f"{path}: not a geometry table with {', '.join(_TABLE)} ({error})") from error
    if set(table) != set(_TABLE):
        raise DetectorError(
            f"{path}: not a geometry table, it lacks {', '.join(sorted(set(_TABLE) - set(table)))}"
        )
    columns = {name: np.array(table[name], float) for name in _TABLE}
    alive = (columns["dom_number"] <= 60) & np.isfinite(columns["rde"])
    return {name: column[alive] for name, column in columns.items()}


def _from_table(path: Path) -> Detector:
    rows = _table(path)
    position = np.stack([rows[f"dom_{axis}"] for axis in "xyz"], axis=1)
    return grid(rows["string"].astype(int), rows["dom_number"].astype(int), position, rows["rde"], str(path))


def _with_table(array: Detector, path: Path) -> Detector:
    """The same positions; efficiencies from the table, and DOMs that it lacks dead."""
    rows = _table(path)
    flat = ((rows["string"] - 1) * array.doms_per_string + rows["dom_number"] - 1).astype(int)
    if flat.min() < 0 or flat.max() >= array.n_doms:
        raise DetectorError(f"{path}: has DOMs that {array.name} has not")
    efficiency, dead = np.ones(array.n_doms), np.ones(array.n_doms, bool)
    efficiency[flat], dead[flat] = rows["rde"], False
    efficiency, dead = efficiency.reshape(array.shape), dead.reshape(array.shape) | array.dead
    noise = np.where(dead, 0.0, STANDARD_NOISE * efficiency)
    return replace(
        array, efficiency=efficiency, noise_rate=noise, dead=dead, name=f"{array.name},{path.name}"
    )
