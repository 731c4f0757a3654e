"""The operations of each backend on real ranks, and how ranks find each other or say why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcreco import parallel
from tests.cluster.emulated import free_ports

pytestmark = pytest.mark.mpi

CHECK = Path(__file__).parent / "ranks_check.py"
OPEN = "from hpcreco import parallel, world; parallel.open({backend!r}, world.detect())"


@pytest.mark.parametrize("ranks", [1, 3])
def test_every_operation(backend, ranks, mpiexec):
    out = mpiexec(ranks, [CHECK, backend]).out
    assert sorted(out.split()) == sorted(["checked"] * ranks + list(map(str, range(ranks))))


def test_a_promise_the_launcher_did_not_keep_is_one_sentence(backend):
    """Ranks of an mpiexec that belongs to another MPI each find themselves alone."""
    other = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    run = launch(OPEN.format(backend=backend), other).communicate(timeout=400)
    last = run[1].strip().splitlines()[-1]
    assert last.startswith("hpcreco.world.WorldError: ")
    assert "promised 2 processes" in last


def test_a_promise_is_kept_without_being_told_the_backend(mpiexec):
    code = "import os; from hpcreco import parallel, world; p = parallel.open(None, world.detect()); "
    run = mpiexec(2, ["-c", code + "os.write(1, f'{p.name} of {p.size}\\n'.encode())"])
    expected = "horovod" if parallel.horovod_works() else "ddp"
    assert run.out.splitlines() == [f"{expected} of 2"] * 2


def test_ranks_of_torchrun_meet_through_the_environment():
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)),
    }
    meet([shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)])


@pytest.mark.parametrize("stale", [False, True])
def test_ranks_without_mpi_meet_through_a_file(tmp_path, stale):
    """Also when a dead job has left its own address there."""
    file = tmp_path / "meet"
    if stale:
        file.write_text("127.0.0.1 9\n")
    shared = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "HPCRECO_RENDEZVOUS_FILE": str(file),
    }
    meet([shared | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)])
    assert not list(tmp_path.iterdir())


def meet(ranks: list[dict[str, str]]) -> None:
    """Start ranks by hand, without mpi4py, and let them check all operations of ddp."""
    code = f"import sys; sys.modules['mpi4py'] = None; sys.argv = ['x', 'ddp']; exec(open({str(CHECK)!r}).read())"
    started = [launch(code, environment) for environment in ranks]
    try:
        for rank, process in enumerate(started):
            out, err = process.communicate(timeout=400)
            assert process.returncode == 0, err
            assert out.split() == ["checked", str(rank)]
    finally:
        for process in started:
            process.kill()


def launch(code: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    launchers = ("PMI_", "OMPI_", "SLURM_", "MPI_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(launchers) and k != "WORLD_SIZE"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
