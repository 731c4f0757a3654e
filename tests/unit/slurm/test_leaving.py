"""Ranks leave together: rank 0 with the agreed code, the others with 0."""

from __future__ import annotations

import pytest

from hpcreco import leaving
from hpcreco.world import World


@pytest.fixture(autouse=True)
def waited(monkeypatch):
    """Seconds waited, instead of waiting."""
    seconds = []
    monkeypatch.setattr(leaving.time, "sleep", seconds.append)
    monkeypatch.setattr(leaving, "_finish_mpi", lambda: None)
    return seconds


def test_rank_0_speaks_for_all_and_leaves_last(waited):
    assert leaving.agreed(75, World(rank=3, size=5)) == 0
    assert not waited
    assert leaving.agreed(75, World(rank=0, size=5)) == 75
    assert waited == [leaving.LINGER]


@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_process_alone_leaves_with_its_code_at_once(code, waited):
    assert leaving.agreed(code, World()) == code
    assert not waited


def test_success_needs_no_waiting(waited):
    assert leaving.agreed(0, World(rank=0, size=5)) == 0
    assert not waited


class RefusalError(Exception):
    exit_code = 2


@pytest.mark.parametrize(("rank", "code"), [("0", 2), ("1", 0)])
def test_a_refusal_is_quiet_only_where_srun_ends_the_step(rank, code, monkeypatch):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "5")
    monkeypatch.setenv("SLURM_PROCID", rank)
    assert leaving.refused(RefusalError(), 2, {"SLURM_WAIT": "60"}) == code
    assert leaving.refused(RefusalError(), 2, {}) == 2


def test_a_refusal_of_all_ranks_is_agreed(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "3")
    monkeypatch.setenv("PMI_RANK", "1")
    error = RefusalError()
    error.everywhere = True
    assert leaving.refused(error, 1, {}) == 0
