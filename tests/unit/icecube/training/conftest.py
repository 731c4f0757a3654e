"""A few simulated events, and a config that trains on them in a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_icecube import assignments, flags, simulate

from hpcreco import cli


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """A folder with pulses/, pairs/ and tracks/."""
    return simulate(tmp_path_factory.mktemp("icecube"))


@pytest.fixture
def changed(simulated, tmp_path):
    """`assignments` for the run tmp_path/run, whose transformation is made."""

    def make(output: str = "run", **more) -> list[str]:
        changes = assignments(simulated, tmp_path / output, **more)
        if not (tmp_path / "trafo/trafo.h5").exists():
            assert cli.main(["icecube", "trafo", "cascade_tiny", *flags(changes)]) == 0
        return changes

    return make
