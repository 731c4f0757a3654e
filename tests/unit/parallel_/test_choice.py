"""Which backend, device and threads a rank takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from hpcreco import parallel
from hpcreco.parallel import ParallelError, node, rendezvous
from hpcreco.world import World, WorldError

TWO = World(0, 2, 0, 2, "mpiexec")


@pytest.mark.parametrize(
    ("asked", "transport", "expected"),
    [
        ("mpi", None, ("horovod", None)),
        ("nccl", None, ("ddp", "nccl")),
        ("gloo", None, ("ddp", "gloo")),
        ("ddp", "gloo", ("ddp", "gloo")),
        ("horovod", None, ("horovod", None)),
    ],
)
def test_backends_go_by_old_and_new_names(asked, transport, expected):
    assert parallel.resolve(asked, TWO, transport) == expected


def test_one_rank_is_serial_and_more_never_are(monkeypatch):
    assert parallel.resolve(None, World()) == ("serial", None)
    assert parallel.resolve("none", World()) == ("serial", None)
    for asked in ("serial", "none"):
        with pytest.raises(ParallelError, match="mpiexec started 2 ranks"):
            parallel.resolve(asked, TWO)
    for works, expected in [(True, "horovod"), (False, "ddp")]:
        monkeypatch.setattr(parallel, "horovod_works", lambda works=works: works)
        assert parallel.resolve(None, TWO) == (expected, None)
    torchrun = World(0, 2, 0, 2, "torchrun")  # Horovod would see one rank there
    monkeypatch.setattr(parallel, "horovod_works", lambda: True)
    assert parallel.resolve(None, torchrun) == ("ddp", None)


def test_an_unknown_backend_is_named_with_the_known_ones():
    with pytest.raises(ParallelError, match=r"'hvd'.*horovod.*mpi"):
        parallel.resolve("hvd", World())


def test_without_horovod_the_choice_falls_on_ddp_silently():
    code = (
        "import sys; sys.modules['horovod'] = None\n"
        "from hpcreco import parallel; from hpcreco.world import World\n"
        "print(parallel.resolve(None, World(0, 2, 0, 2, 'mpiexec')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "('ddp', None)"
    assert run.stderr == ""


@pytest.fixture
def threads(monkeypatch):
    """Restores torch's and numba's threads; no OMP_NUM_THREADS."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", os.environ.get("NUMBA_NUM_THREADS", "1"))
    yield
    torch.set_num_threads(before)


def test_ranks_divide_the_cores_they_share_and_keep_those_they_own(threads, monkeypatch):
    shared = [("a", (0, 1, 2, 3))] * 2 + [("b", (0, 1, 2, 3))]
    assert node.use_threads(shared, 0) == 2
    assert torch.get_num_threads() == 2
    assert node.use_threads(shared, 2) == 4
    bound = [("a", (0, 1)), ("a", (2, 3))]
    assert node.use_threads(bound, 1) == 2
    assert node.use_threads([("a", (0,))] * 3, 1) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert node.use_threads(shared, 0) == 3


def test_devices_go_by_local_rank_and_idle_ones_are_reported(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    eight = [World(r, 8, r, 8, "srun") for r in range(8)]
    assert [node.choose_device(world).index for world in eight] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert len(chosen) == 8
    with pytest.warns(UserWarning, match=r"4 GPUs to 2 task\(s\): 2 will idle"):
        node.choose_device(World(0, 2, 0, 2, "srun"))
    assert node.choose_device(World(1, 4, 1, 4, "srun"), "cpu") == torch.device("cpu")
    assert node.choose_device(World(1, 4, 1, 4, "srun"), "cuda") == torch.device("cuda", 1)
    assert node.choose_device(World(1, 4, 1, 4, "srun"), "cuda:3") == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert node.choose_device(World()) == torch.device("cpu")
    with pytest.raises(node.NoGpuError, match="no GPU"):
        node.choose_device(World(), "cuda")


def test_a_rendezvous_file_is_one_per_job_and_the_same_on_all_ranks(tmp_path):
    def name(rank: int, **environ: str):
        return rendezvous.address_file(World(rank, 4, rank % 2, 2, "srun"), tmp_path, environ)

    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    assert name(0, **job) == name(3, **job)
    assert (
        len({name(0, **job), name(0, **job | {"SLURM_RESTART_COUNT": "1"}), name(0, SLURM_JOB_ID="8")}) == 3
    )
    assert str(name(0, HPCRECO_RENDEZVOUS_FILE="/x/y")) == "/x/y"
    with pytest.raises(WorldError, match="HPCRECO_RENDEZVOUS_FILE"):
        name(0)
    with pytest.raises(WorldError, match="HPCRECO_RENDEZVOUS_FILE"):
        rendezvous.address_file(World(0, 2, 0, 2, "srun"), None, {})


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ([None, None], False),
        (["a 1", "a 2", "b 1"], True),
        (["a 1", "a 1"], False),
        (["a 1", None], False),
    ],
)
def test_nccl_needs_a_gpu_of_its_own_for_every_rank(gpus, expected):
    assert node.own_gpus(gpus) is expected
    assert node.gpu(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("built", "gpus", "on_device", "warning"),
    [
        (False, [None, None], False, None),
        (True, ["a 1", "a 2"], True, None),
        (False, ["a 1", "a 2"], False, "built for the CPU only.*HPCRECO_CUDA=torch tools/setup horovod"),
        (True, ["a 1", "a 1"], False, "some ranks share one.*one rank per GPU"),
    ],
)
def test_horovod_says_why_gradients_leave_the_gpu(built, gpus, on_device, warning, recwarn):
    from hpcreco.parallel.horovod import Horovod

    ranks = object.__new__(Horovod)
    ranks.rank, ranks._hvd = 0, SimpleNamespace(nccl_built=lambda: built)
    assert ranks._nccl(gpus) is on_device
    told = [str(found.message) for found in recwarn]
    assert len(told) == (warning is not None)
    assert warning is None or re.search(warning, told[0])
