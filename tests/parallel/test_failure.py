"""One rank that dies, fails, stops or hangs ends the whole job, and nothing of it stays behind."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi

FAILING = Path(__file__).parent / "ranks_failing.py"


def fail(mpiexec, backend: str, how: str, timeout: float):
    """What became of a job whose rank 1 fails; it ends before mpiexec's patience of less than 1000 s does."""
    ended = mpiexec(3, [FAILING, backend, how, timeout], check=False)
    assert re.findall(r"^failing$", ended.out, re.M) == ["failing"]
    pids = [int(pid) for pid in re.findall(r"^rank of process (\d+)$", ended.out, re.M)]
    assert len(pids) == 3, ended
    assert ended.code not in (0, 75)
    assert gone(pids), "ranks outlived their job"
    return ended


def gone(pids: list[int]) -> bool:
    """Whether no process lives on; a killed one may need a moment."""
    for _ in range(1000):
        if not any(Path(f"/proc/{pid}").exists() and state(pid) != "Z" for pid in pids):
            return True
        time.sleep(0.1)
    return False


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_killed_rank_ends_the_job(backend, mpiexec):
    fail(mpiexec, backend, "killed", 1000)


def test_a_raising_rank_ends_the_job_and_shows_its_error(backend, mpiexec):
    err = fail(mpiexec, backend, "raising", 1000).err
    assert "hpcreco: error: rank 1 of 3 on" in err
    assert "KeyError: 'nobody caught this'" in err


def test_an_error_meant_for_the_user_is_one_line(mpiexec):
    err = fail(mpiexec, "ddp", "refusing", 1000).err
    assert err.count("the file is broken") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["stopped", "sleeping", "holding"])
def test_a_rank_that_makes_no_progress_ends_the_job(backend, how, mpiexec):
    """The others wait inside a collective operation meanwhile."""
    err = fail(mpiexec, backend, how, 8).err
    assert "no progress for 8 s since step 4" in err
    assert "sum_" in err, "the stack of the waiting thread is missing"


def test_processes_can_be_seen():
    """Guards `gone`."""
    assert state(os.getpid()) in "RSD"
