"""Collective operations alone; real ranks are in tests/parallel/test_collective_ranks.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcreco.collective import Alone, connect
from hpcreco.world import World, WorldError


@given(hnp.arrays(st.sampled_from(["f4", "f8", "i8", "u2"]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_alone_the_sum_is_a_copy(array):
    total = Alone().sum(array)
    np.testing.assert_array_equal(total, array)
    assert total.dtype == array.dtype
    assert not np.shares_memory(total, array)


def test_alone_every_operation_is_ones_own():
    alone = connect(World())
    assert (alone.rank, alone.size) == (0, 1)
    assert alone.gather("a") == ["a"]
    assert alone.broadcast({"a": 1}) == {"a": 1}
    assert alone.alltoall([3]) == [3]
    assert list(alone.take(4)) == [0, 1, 2, 3]
    with pytest.raises(SystemExit):
        alone.abort(3)


def test_torchrun_starts_no_mpi():
    with pytest.raises(WorldError, match="mpiexec or srun"):
        connect(World(0, 2, 0, 2, "torchrun"))


@pytest.mark.parametrize(("launcher", "cause"), [("srun", "--mpi"), ("mpiexec", "another MPI")])
def test_a_broken_promise_is_one_sentence_with_its_cause(launcher, cause, monkeypatch):
    """What really happens with a wrong --mpi: each process comes up as a world of one."""
    mpi4py = pytest.importorskip("mpi4py")
    fake = type("MPI", (), {"COMM_WORLD": type("Comm", (), {"Get_size": staticmethod(lambda: 1)})})
    monkeypatch.setattr(mpi4py, "MPI", fake, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "mpi4py.MPI", fake)
    with pytest.raises(WorldError, match=cause) as caught:
        connect(World(0, 5, 0, 1, launcher))
    message = str(caught.value)
    assert "promised 5" in message
    assert "sees 1" in message
    assert "\n" not in message
