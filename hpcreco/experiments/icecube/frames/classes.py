"""Results as objects of the experiment's own software, which is imported only here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from hpcreco.experiments.icecube.frames.content import FrameError


def particle(values: Mapping[str, float], fitted: bool) -> Any:
    """An I3Particle."""
    dataclasses = _dataclasses()
    made = dataclasses.I3Particle()
    made.pos = dataclasses.I3Position(values["x"], values["y"], values["z"])
    made.dir = dataclasses.I3Direction(values["zenith"], values["azimuth"])
    made.energy, made.time = values["energy"], values["time"]
    made.shape = dataclasses.I3Particle.Cascade
    status = dataclasses.I3Particle.FitStatus
    made.fit_status = status.OK if fitted else status.GeneralFailure
    return made


def number_map(values: Mapping[str, float]) -> Any:
    """An I3MapStringDouble."""
    return _dataclasses().I3MapStringDouble(dict(values))


def _dataclasses() -> Any:
    try:
        return importlib.import_module("icecube.dataclasses")
    except ImportError as error:
        raise FrameError(
            "the experiment's software (icecube.dataclasses) is not here; run inside its environment, or give "
            "make_particle and make_map"
        ) from error
