"""Tracks and showers of the experiment's own reconstruction: the calo and calonosce products.

Legacy files hold per event a list of objects ``[kind, plane, kinetic energy, rows]``; a row is one voxel of the object
with its averages. `read` makes flat arrays of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import names
from hpcreco.experiments.protodune.parsed import ParsedError

PRODUCTS = ("calo", "calonosce")  # the second without the correction for space charge
KINDS = ("Track", "Shower")
COLUMNS = ("x", "y", "z", "dqdx", "dedx", "residual_range")


@dataclass(frozen=True)
class Calorimetry:
    """Objects of one event: O of them, with R rows in all.

    kind : str (O,), Track or Shower
    plane : int64 (O,), 0, 1 or 2: the plane whose hits were measured
    kinetic_energy : float64 (O,) MeV
    offsets : int64 (O + 1,), rows of object k are [offsets[k], offsets[k + 1])
    rows : float64 (R, 6), the columns COLUMNS
    """

    kind: np.ndarray
    plane: np.ndarray
    kinetic_energy: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray

    def of(self, number: int) -> np.ndarray:
        """Rows (r, 6) of one object."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]


def read(path: Path, allow_pickle: bool = False) -> list[Calorimetry]:
    """The events of a legacy calo file. Lists of objects are pickled, which can run code: only with `allow_pickle`.

    Raises ParsedError naming file, event and object.
    """
    product = names.require(path).product
    if product not in PRODUCTS:
        raise ParsedError(f"{path}: holds {product}, expected {' or '.join(PRODUCTS)}")
    try:
        with np.load(path, allow_pickle=allow_pickle) as file:
            events = [file[f"arr_{event}"] for event in range(len(file.files))]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ParsedError(
                f"{path}: holds pickled objects, which can run code; allow it if you trust the file"
            ) from error
        raise ParsedError(f"{path}: cannot be read ({error})") from error
    except (OSError, KeyError) as error:
        raise ParsedError(f"{path}: cannot be read ({error}); expected arr_0, arr_1, ...") from error
    return [_event(path, number, objects) for number, objects in enumerate(events)]


def _event(path: Path, event: int, objects: Any) -> Calorimetry:
    kinds, planes, energies, rows = [], [], [], [np.zeros((0, len(COLUMNS)))]
    for number, entry in enumerate(objects):
        try:
            kind, plane, energy, table = entry
            table = np.asarray(table, float).reshape(-1, len(COLUMNS))
            plane, energy = int(plane), float(energy)
        except (TypeError, ValueError) as error:
            raise ParsedError(
                f"{path}: event {event}, object {number}: expected [kind, plane, energy, rows of {len(COLUMNS)}]"
            ) from error
        if kind not in KINDS or plane not in (0, 1, 2):
            raise ParsedError(
                f"{path}: event {event}, object {number}: a {kind} on plane {plane}, which is unknown"
            )
        kinds.append(str(kind))
        planes.append(plane)
        energies.append(energy)
        rows.append(table)
    offsets = np.cumsum([len(table) for table in rows], dtype=np.int64)
    return Calorimetry(
        np.array(kinds, dtype="U6"),
        np.array(planes, np.int64),
        np.array(energies),
        offsets,
        np.concatenate(rows),
    )
