"""ProtoDUNE-SP: from wire signals to the voxels that hold charge. Names the parts and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcreco.experiment import Experiment

_HERE = "hpcreco.experiments.protodune"
#: data sets without files, by the names that a config is recognised by
_MADE = ("random", "random_sparse")


def recognises(raw: Mapping[str, Any]) -> bool:
    """Is this config in the original program's dialect: xy folders in `data.data_path`, a named model?

    Or `trainer: hello`, or a data set that makes its events.
    """
    trainer, data, model = raw.get("trainer"), raw.get("data"), raw.get("model")
    if "hello" in (trainer, trainer.get("name") if isinstance(trainer, Mapping) else None):
        return True
    has_data = isinstance(data, Mapping) and ("data_path" in data or data.get("name") in _MADE)
    return has_data and isinstance(model, Mapping) and "name" in model


def claims(path: Path) -> bool:
    """Is this one of the original program's arrays, a wire-cell frame archive, or a file of energy deposits?"""
    return path.suffix in (".npz", ".npy", ".zip", ".tgz") or ".tar" in path.suffixes


EXPERIMENT = Experiment(
    name="protodune",
    summary="liquid-argon wire signals -> candidate voxels -> which of them hold charge",
    normalise=f"{_HERE}.dialect:normalise",
    files=f"{_HERE}.files:find",
    cost=f"{_HERE}.files:voxels",
    task=f"{_HERE}.plugins.task:of",
    recognises=recognises,
    claims=claims,
    legacy=f"{_HERE}.legacy_scripts:WRAPPERS",
    verbs={
        **{verb: f"{_HERE}.{verb}" for verb in ("simulate", "tile", "convert", "report", "display")},
        "join-tpcs": f"{_HERE}.join_tpcs",
        "geometry": f"{_HERE}.show_geometry",
        "solve": f"{_HERE}.solve",
        "mask": f"{_HERE}.mask",
        "merge-tpcs": f"{_HERE}.merge_tpcs",
    },
    schemas={
        "xy": f"{_HERE}.xy:XY",
        "pixel": f"{_HERE}.xy:PIXEL",
        "yinf": f"{_HERE}.yinf:YINF",
        "solved": f"{_HERE}.solved:SOLVED",
        "merged": f"{_HERE}.solved:MERGED",
        "classes": f"{_HERE}.plugins.yinf:CLASSES",
        "wire": f"{_HERE}.parsed:WIRE",
        "truth": f"{_HERE}.parsed:TRUTH",
        "particles": f"{_HERE}.parsed:PARTICLES",
        "trajectories": f"{_HERE}.parsed:TRAJECTORIES",
        "calo": f"{_HERE}.parsed:CALO",
    },
)
