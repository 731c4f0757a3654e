"""The collective operations on real ranks, and what happens when the launcher lies."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi
HERE = Path(__file__).parent


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_operations(mpiexec, ranks):
    run = mpiexec(ranks, [HERE / "ranks_collective.py"])
    assert run.out.count("checked") == ranks


def test_more_promised_than_came_up_is_refused(mpiexec):
    """Each rank of 2 believes in 5; MPI itself has been started before, so that it is not misled."""
    code = "import os, mpi4py.MPI; os.environ['PMI_SIZE'] = '5'; from hpcreco.collective import connect; connect()"
    run = mpiexec(2, ["-c", code], check=False)
    assert run.code != 0
    assert "promised 5 processes but MPI sees 2" in run.err
