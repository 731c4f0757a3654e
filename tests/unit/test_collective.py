"""Collective operations alone; real ranks are in tests/parallel/test_collective_ranks.py."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

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


@pytest.fixture
def mpi(monkeypatch):
    """``mpi(size=, version=)`` puts a pretended MPI in the place of mpi4py's; it lists what was called."""
    mpi4py = pytest.importorskip("mpi4py")

    def pretend(size: int, version: str) -> list[str]:
        called: list[str] = []
        fake = SimpleNamespace(
            THREAD_MULTIPLE=3,
            COMM_WORLD=SimpleNamespace(Get_size=lambda: size),
            Get_library_version=lambda: version,
            Is_initialized=lambda: False,
            Init_thread=lambda required: called.append("Init_thread"),
        )
        monkeypatch.setattr(mpi4py, "MPI", fake, raising=False)
        monkeypatch.setitem(sys.modules, "mpi4py.MPI", fake)
        monkeypatch.setattr(mpi4py.rc, "initialize", True)
        monkeypatch.setattr(mpi4py.rc, "finalize", None)
        return called

    return pretend


@pytest.mark.parametrize(("launcher", "cause"), [("srun", "--mpi=pmi2"), ("mpiexec", "another MPI")])
def test_a_broken_promise_is_one_sentence_with_its_cause(launcher, cause, mpi):
    """What really happens with a wrong --mpi: each process comes up as a world of one."""
    mpi(1, "MPICH Version: 5")
    with pytest.raises(WorldError, match=cause) as caught:
        connect(World(0, 5, 0, 1, launcher))
    message = str(caught.value)
    assert "promised 5" in message
    assert "sees 1" in message
    assert "\n" not in message


def test_what_all_ranks_refuse_rank_0_says(mpi):
    mpi(1, "MPICH Version: 5")
    for rank in range(3):
        with pytest.raises(WorldError) as caught:
            connect(World(rank, 3, 0, 1, "srun"))
        assert caught.value.everywhere
        assert caught.value.quiet == (rank != 0)


def test_pmix_is_refused_before_mpich_aborts(mpi, monkeypatch):
    called = mpi(5, "MPICH Version: 5")
    monkeypatch.setenv("PMIX_RANK", "0")
    with pytest.raises(WorldError, match="speaks PMIx.*--mpi=pmi2"):
        connect(World(0, 5, 0, 1, "srun"))
    assert not called


@pytest.mark.parametrize("version", ["Open MPI v4.1.4", "MPI VERSION : CRAY MPICH version 8.1"])
def test_pmix_is_for_other_mpis_to_judge(mpi, monkeypatch, version):
    called = mpi(1, version)
    monkeypatch.setenv("PMIX_RANK", "0")
    with pytest.raises(WorldError, match="sees 1"):  # so the size was looked at
        connect(World(0, 5, 0, 1, "srun"))
    assert called == ["Init_thread"]


@pytest.mark.parametrize(
    ("launcher", "version", "chosen"),
    [
        ("srun", "MPICH Version: 5.0.2\nMPICH Device: ch4:ucx ofi", "ofi"),
        ("srun", "MPICH Version: 4.0.2\nMPICH Device: ch4:ucx", None),
        ("srun", "MPI VERSION : CRAY MPICH version 8.1 ofi", None),
        ("mpiexec", "MPICH Version: 5.0.2\nMPICH Device: ch4:ucx ofi", None),
    ],
)
def test_addresses_are_short_enough_for_slurm(mpi, monkeypatch, launcher, version, chosen):
    """Slurm's pmi2 reads 1024 characters at once, which MPICH's UCX addresses now and then exceed."""
    monkeypatch.setenv("MPIR_CVAR_CH4_NETMOD", "restored after the test")
    monkeypatch.delenv("MPIR_CVAR_CH4_NETMOD")
    mpi(1, version)
    with pytest.raises(WorldError, match="sees 1"):
        connect(World(0, 5, 0, 1, launcher))
    assert os.environ.get("MPIR_CVAR_CH4_NETMOD") == chosen
    monkeypatch.setenv("MPIR_CVAR_CH4_NETMOD", "mine")
    with pytest.raises(WorldError, match="sees 1"):
        connect(World(0, 5, 0, 1, launcher))
    assert os.environ["MPIR_CVAR_CH4_NETMOD"] == "mine"
