"""IceCube: generator networks inside a likelihood. Names the parts and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcreco.experiment import Experiment

_HERE = "hpcreco.experiments.icecube"


def recognises(raw: Mapping[str, Any]) -> bool:
    """Is this config in the original package's dialect: a hypothesis in `model_settings`, a data handler?"""
    return "model_settings" in raw and "data_handler_settings" in raw


def claims(path: Path) -> bool:
    """Is this a file of pulses of somebody else: PyTables, sqlite, parquet, a text table or a geometry?"""
    return path.suffix in (".hdf5", ".hd5", ".h5", ".db", ".sqlite", ".parquet", ".txt", ".geo")


EXPERIMENT = Experiment(
    name="icecube",
    summary="neutrino telescopes: generator networks trained and used inside a likelihood",
    normalise=f"{_HERE}.dialect:normalise",
    files=f"{_HERE}.files:find",
    cost=f"{_HERE}.files:pulses",
    task=f"{_HERE}.task:TASK",
    recognises=recognises,
    claims=claims,
    legacy=f"{_HERE}.legacy:WRAPPERS",
    verbs={
        **{
            verb: f"{_HERE}.{verb}"
            for verb in ("simulate", "convert", "reconstruct", "report", "display", "export")
        },
        "trafo": f"{_HERE}.create_trafo",
    },
    schemas={
        "pulses": f"{_HERE}.pulses:PULSES",
        "detector": f"{_HERE}.detector:DETECTOR",
        "yinf": f"{_HERE}.yinf:YINF",
        "losses": f"{_HERE}.yinf:LOSSES",
    },
    checks={"pulses": f"{_HERE}.checks:problems", "detector": f"{_HERE}.checks:detector_problems"},
)
