"""Energy deposits simulated elsewhere -> drift -> wires: parsed events with truth from public Geant4 samples.

Two formats are read: the zip files of the Bee display (``*-truthDepo.json``: x, y, z in cm, q in electrons, all
at the trigger) and the wire-cell toolkit's npz files (``depo_data_<i>``: t [ns], q [-electrons], x, y, z [mm], two
widths; ``depo_info_<i>``: id, PDG, generation, child).
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune.geometry import Geometry
from hpcreco.experiments.protodune.simulation import chain, drift, ionisation
from hpcreco.experiments.protodune.simulation.chain import Settings, SimulatedEvent
from hpcreco.experiments.protodune.simulation.deposits import Deposits
from hpcreco.experiments.protodune.simulation.streams import EventKey

KIND = 99  # code of imported events in the keys of random streams
_BEE = re.compile(r"(?P<event>\d+)-truthDepo\.json$")


class DepoError(RuntimeError):
    """A file of deposits that is not what this reader knows."""

    exit_code = 1


def read_depos(path: Path, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> dict[int, Deposits]:
    """Deposits by event number, detector frame, mm and us; `shift` (mm) moves a sample of another detector."""
    events = read_bee(path) if path.suffix == ".zip" else read_wirecell(path)
    if not events:
        raise DepoError(f"{path}: no deposits; expected *-truthDepo.json members or depo_data_<i> arrays")
    return {number: replace(depos, position=depos.position + shift) for number, depos in events.items()}


def read_bee(path: Path) -> dict[int, Deposits]:
    """Deposits of a Bee zip file; they carry charge only, so that their energy is that of a minimum-ionising one."""
    events: dict[int, Deposits] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                match = _BEE.search(member)
                if match:
                    columns = json.loads(archive.read(member))
                    points = 10.0 * np.stack([np.asarray(columns[axis], float) for axis in "xyz"], axis=1)
                    charge = np.asarray(columns["q"], float)
                    events[int(match["event"])] = _deposits(points, charge, np.zeros(len(charge)))
    except (zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        raise DepoError(f"{path}: not a readable Bee file ({error})") from error
    return events


def read_wirecell(path: Path) -> dict[int, Deposits]:
    """Deposits of a wire-cell npz file; only those as simulated, not their drifted descendants."""
    events: dict[int, Deposits] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if name.startswith("depo_data_"):
                    number = int(name.removeprefix("depo_data_"))
                    data, info = file[name].astype(float), file[f"depo_info_{number}"]
                    rows = info[2] == 0
                    time, charge, points = data[0, rows] * 1e-3, np.abs(data[1, rows]), data[2:5, rows].T
                    events[number] = _deposits(points, charge, time, info[0, rows], info[1, rows])
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, IndexError) as error:
        raise DepoError(f"{path}: not a readable wire-cell deposit file ({error})") from error
    return events


def _deposits(
    points: np.ndarray,
    charge: np.ndarray,
    time: np.ndarray,
    track: np.ndarray | None = None,
    pdg: np.ndarray | None = None,
) -> Deposits:
    mip = ionisation.electrons(np.array([ionisation.MIP]), np.array([1.0]))[0]
    unknown = np.zeros(len(charge), np.int32)
    return Deposits(
        position=points,
        extent=np.zeros_like(points),
        energy=charge * (ionisation.MIP / mip),
        electrons=charge,
        time=time,
        track=unknown if track is None else track.astype(np.int32),
        pdg=unknown if pdg is None else pdg.astype(np.int32),
    )


def respond(
    depos: Deposits, event: int, geometry: Geometry, tpc: int, settings: Settings, seed: int
) -> SimulatedEvent:
    """What TPC `tpc` sees of imported deposits."""
    response = chain.respond(depos, EventKey(seed, KIND, 0, event), geometry, tpc, settings)
    return SimulatedEvent(response.samples, drift.voxelise(response.seen), [], response.charges)
