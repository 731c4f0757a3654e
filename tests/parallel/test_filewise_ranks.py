"""File-wise jobs on real MPI ranks and array tasks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hpcreco import filewise, shards
from tests.conftest import end, find_mpiexec

pytestmark = pytest.mark.mpi
VERB = Path(__file__).parent / "ranks_filewise.py"


def worked(folder: Path) -> Counter[str]:
    """How often each job was begun, by any rank."""
    return Counter(item.name.split(".")[0] for item in (folder / "log").iterdir())


def made(folder: Path) -> set[str]:
    """Keys of the outputs; every one is whole, and nothing else lies about."""
    outputs = [item for item in folder.iterdir() if item.name not in ("log", "report.json")]
    assert all(item.suffix == ".h5" and not item.name.startswith(".") for item in outputs), outputs
    assert all(shards.validate(item) == [] for item in outputs)
    return {item.stem for item in outputs}


def keys(n: int) -> set[str]:
    return {f"f{number}" for number in range(n)}


@pytest.mark.parametrize("schedule", filewise.SCHEDULES)
@pytest.mark.parametrize(("ranks", "n"), [(3, 8), (4, 2)])  # also more ranks than files
def test_every_file_is_done_once(mpiexec, tmp_path, schedule, ranks, n):
    run = mpiexec(ranks, [VERB, tmp_path, n, "--schedule", schedule])
    assert made(tmp_path) == keys(n)
    assert worked(tmp_path) == dict.fromkeys(keys(n), 1)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["workers"] == ranks
    assert content["counts"] == {"done": n}
    shares = Counter(record["worker"] for record in content["jobs"])
    if schedule == "contiguous":
        assert shares == {
            rank: len(block) for rank, block in enumerate(filewise.contiguous(n, ranks)) if block
        }
    assert run.out.count("toy: ") == 1  # one summary, by rank 0


@pytest.mark.parametrize("busy", [0, 1])
def test_files_are_handed_out_on_demand(mpiexec, tmp_path, busy):
    """Rank 0 works too, and whoever is free takes the next: one rank has a file that outlasts the three others."""
    mpiexec(2, [VERB, tmp_path, 4, "--schedule", "dynamic", "--busy", busy])
    content = json.loads((tmp_path / "report.json").read_text())
    assert Counter(record["worker"] for record in content["jobs"]) == {busy: 1, 1 - busy: 3}


def test_one_bad_file_fails_alone_and_is_redone(mpiexec, tmp_path):
    run = mpiexec(3, [VERB, tmp_path, 7, "--bad", "f4"], check=False)
    assert run.code == 1
    assert made(tmp_path) == keys(7) - {"f4"}
    assert [line for line in run.err.splitlines() if "f4" in line] == [
        "hpcreco: error: toy: f4: ValueError: bad file"
    ]
    mpiexec(2, [VERB, tmp_path, 7])
    assert made(tmp_path) == keys(7)
    assert worked(tmp_path) == dict.fromkeys(keys(7), 1) | {"f4": 2}


def test_array_tasks_of_ranks(mpiexec, tmp_path):
    """Two array tasks of two ranks each, one after the other, do everything once."""
    for task in (0, 1):
        array = {"ID": task, "COUNT": 2, "MIN": 0, "MAX": 1, "STEP": 1}
        env = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
        mpiexec(2, [VERB, tmp_path, 7, "--run-report", tmp_path / "log" / "r.json"], env=env)
    reports = [json.loads((tmp_path / "log" / f"r.task{task}.json").read_text()) for task in (0, 1)]
    shares = Counter(record["worker"] for content in reports for record in content["jobs"])
    assert shares == {0: 1, 1: 2, 2: 2, 3: 2}
    assert made(tmp_path) == keys(7)


@pytest.mark.parametrize("schedule", ["contiguous", "dynamic"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_job_ends_with_75_and_goes_on_later(mpiexec, tmp_path, schedule, number):
    program = find_mpiexec()
    command = [program, "-n", "2", sys.executable, VERB, tmp_path, 6, "--schedule", schedule, "--stall"]
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "log").is_dir() or len(worked(tmp_path)) < 4:  # the second files are in work
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=300) == 75
    finally:
        if process.poll() is None:
            end(process)
    before = made(tmp_path)
    assert len(before) == 2
    counts = json.loads((tmp_path / "report.json").read_text())["counts"]
    assert counts == {"done": 2, "stopped": 2, "left": 2}
    mpiexec(3, [VERB, tmp_path, 6])
    assert made(tmp_path) == keys(6)
    assert all(worked(tmp_path)[key] == 1 for key in before)


def test_a_defect_on_one_rank_ends_them_all(mpiexec, tmp_path):
    run = mpiexec(3, [VERB, tmp_path, 6, "--raise-in-check", "f5"], check=False)
    assert run.code != 0
    assert made(tmp_path) == set()
