"""Simulated events that the tests here share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpcreco.cli import main


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """A folder with two shards of 20 cascades of 10 to 30 TeV within 7 strings of 10 DOMs."""
    folder = tmp_path_factory.mktemp("pulses")
    size = ["--preset", "tiny", "-n", "40", "--per-file", "20", "--seed", "11", "--out", str(folder)]
    inside = ["hypothesis.energy=[1e4,3e4]", "hypothesis.radius=100", "hypothesis.half_height=70"]
    assert main(["simulate", "icecube", *size, *(part for text in inside for part in ("--set", text))]) == 0
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads, and the tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
