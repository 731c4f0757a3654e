"""MPI starts with the shared memory that there is, or says what it lacks."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcreco.collective import shared_memory


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """``settled(free, ranks)``: what is lacking, and what the environment is then."""

    def settled(free: float, ranks: int, **environment: str) -> tuple[str | None, dict[str, str]]:
        blocks = 2**20 if free < math.inf else 0
        found = SimpleNamespace(f_blocks=blocks, f_bavail=free // 4096 if blocks else 0, f_frsize=4096)
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda folder: found)
        return shared_memory.settle(ranks, environment, tmp_path), environment

    return settled


@pytest.mark.parametrize(("free", "ranks"), [(1e9, 4), (64e6, 4), (1e9, 128), (math.inf, 128)])
def test_where_there_is_enough_nothing_changes(settled, free, ranks):
    assert settled(free, ranks) == (None, {})


@pytest.mark.parametrize(("free", "ranks"), [(16e6, 1), (64e6, 16), (64e6, 40)])
def test_where_room_is_scarce_ucx_takes_none(settled, free, ranks):
    assert settled(free, ranks) == (None, {"UCX_TLS": "^posix"})
    assert settled(free, ranks, UCX_TLS="tcp") == (None, {"UCX_TLS": "tcp"})


def test_where_it_cannot_work_the_remedy_is_named(settled):
    lacking, environment = settled(64e6, 128)
    assert "has room for 64 MB, and MPICH needs 154 MB" in lacking
    assert "--shm-size" in lacking
    assert environment == {}


def test_a_machine_without_it_has_none():
    lacking = shared_memory.settle(2, {}, Path("/nonexistent"))
    assert lacking.startswith("/nonexistent has room for 0 MB")
