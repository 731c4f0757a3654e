"""A measurement with round numbers, and plans over costs of one's own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import BaseModel

from hpcreco.config import Run
from hpcreco.data.plan import StepPlanner
from hpcreco.planning.measurement import Line, Measurement
from hpcreco.planning.network import Network
from hpcreco.planning.prediction import Predictor, Work

#: nothing but work that is proportional to its cost
PURE = Measurement(
    stage="main",
    config="toy",
    machine="here",
    device="cpu",
    threads=1,
    forward_backward=Line(0.0, 1e-3),
    forward=Line(0.0, 0.4e-3),
    reading=Line(0.0, 0.0),
    update=0.0,
    memory=Line(1e8, 1e4),
    data=Line(0.0, 100.0),
    save=0.0,
    start=0.0,
    parameters=1000,
    gradients=(0.0,),
    packing=0.0,
    points=((1.0, 1e-3, 1e8), (10.0, 1e-2, 1e8)),
    network=Network(0.0, 1e9),
)


class Settings(BaseModel):
    """No settings."""


@pytest.fixture
def pure() -> Measurement:
    return PURE


@pytest.fixture
def predictor():
    """``predictor(costs, mode, size, ..., measured changes)``: a `Predictor` over events of `costs`, one a file."""

    def make(
        costs, mode="events", size=1.0, *, budget=None, validation=(), overlap=True, keys=None, **changes
    ) -> Predictor:
        costs = np.asarray(costs, float)
        planner = StepPlanner(SimpleNamespace(first=np.arange(len(costs) + 1)), costs, mode, size, seed=1)
        run = Run(experiment="toy", output_dir="out", settings=Settings(), **{"epochs": 3, **(keys or {})})
        work = Work(run, planner, np.asarray(validation, float), budget)
        return Predictor(work, replace(PURE, **changes), overlap=overlap)

    return make
