"""Small simulated events, made once, and how the tests of the data call the verbs."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hpcreco.experiments.icecube import arrays, convert, simulate
from hpcreco.experiments.icecube.simulation.settings import Settings


def run_verb(verb, *arguments) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def run_simulate(capsys):
    return lambda *arguments: run_verb(simulate, *arguments)


@pytest.fixture
def run_convert(capsys):
    return lambda *arguments: run_verb(convert, *arguments)


@pytest.fixture(scope="session")
def small():
    return arrays.named("hex7x10")


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """Two files of 20 events each in 7 x 10 DOMs, with more dead time than usual."""
    folder = tmp_path_factory.mktemp("sample")
    options = [
        "--set",
        "dead_time.probability=0.3",
        "--set",
        "dead_time.saturation=200",
        "--set",
        "bright.fraction=0.1",
        "--set",
        "readout.charge=spe",
    ]
    run_verb(simulate, "-n", 40, "--per-file", 20, "--seed", 5, "--out", folder, *options)
    return folder


@pytest.fixture(scope="session")
def plain() -> Settings:
    """No noise, no dead time, no exclusions but dead DOMs: photons alone."""
    return Settings.model_validate(
        {
            "noise": 0.0,
            "dead_time": {"probability": 0.0, "saturation": None},
            "bright": None,
            "readout": {"max_pulses": 0},
        }
    )
