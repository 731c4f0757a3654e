"""The commands of the original program's document, in its order, with what `hpcreco legacy install` wrote.

sbatch, srun and scontrol are stand-ins that run a job at once, on two MPI ranks.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hpcreco import shards
from hpcreco.doctor.asking import probe_environment
from hpcreco.experiments.protodune.xy import XY
from hpcreco.train import summary
from tests.conftest import REPOSITORY, find_mpiexec

pytestmark = pytest.mark.slow

_SBATCH = """#!/bin/bash
while [[ $1 == -* ]]; do shift 2; done
export SLURM_JOB_ID=1 SLURM_JOB_NODELIST=here SLURM_SUBMIT_DIR=$PWD
echo "Submitted batch job 1"
exec bash "$@"
"""
_SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
exec {mpiexec} -n 2 "$@"
"""


@dataclass(frozen=True)
class Desk:
    """The user's folder, with the installed scripts in it, and $SCRATCH."""

    folder: Path
    scratch: Path
    environment: dict[str, str]

    def type(self, line: str, code: int = 0) -> str:
        """Type a line; returns all it has printed."""
        ended = subprocess.run(
            shlex.split(line),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode == code, f"{line}\n{said}"
        return said

    def edit(self, name: str, **sections) -> None:
        """Change configs/NAME, as a user does with an editor: small networks, own data."""
        path = self.folder / "configs" / name
        raw = yaml.safe_load(path.read_text())
        for key, value in sections.items():
            raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(raw))


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    mpiexec = find_mpiexec()
    if mpiexec is None:
        pytest.skip("needs mpiexec (the mpich wheel, or an MPI on PATH)")
    root = tmp_path_factory.mktemp("document")
    stand_ins = {"sbatch": _SBATCH, "srun": _SRUN.replace("{mpiexec}", mpiexec), "scontrol": "#!/bin/bash\n"}
    (root / "slurm").mkdir()
    for name, text in stand_ins.items():
        (root / "slurm" / name).write_text(text)
        (root / "slurm" / name).chmod(0o755)
    environment = probe_environment() | {
        "PATH": f"{root / 'slurm'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "SCRATCH": str(root / "scratch"),
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    environment.pop("BASE_DIR", None)
    made = Desk(root, root / "scratch" / "larsim", environment)
    made.type(f"{sys.executable} -m hpcreco legacy install .")
    made.type(
        f"{sys.executable} -m hpcreco simulate protodune --preset tiny --seed 3 --files 2 --events 2 "
        "--tpcs 1 5 9 --out parsed_dir"
    )
    return made


@pytest.fixture(scope="module")
def tiled(desk) -> Desk:
    """xy files of TPC 1, one event a file."""
    desk.type("scripts/make_batches.sh -i parsed_dir -o out_dir -t 1 -b 1 -n 32")
    return desk


@pytest.fixture(scope="module")
def trained(tiled) -> Desk:
    """A network trained by the batch script, small and for two epochs."""
    small = {"nChannels": 2, "nStrides": 2, "reps": 1}
    folder = {"data_path": "$SCRATCH/larsim/out_dir", "tpcs": [1]}
    run = {"output_dir": "$SCRATCH/ghost", "model": small}
    data = folder | {"train_i": [1, 1], "inference_i": [2, 2]}
    tiled.edit("ghost3d.yaml", data=data, train={"n_epochs": 2}, store_inference=False, **run)
    infer = folder | {"train_i": None, "inference_i": [2, 2]}
    tiled.edit("ghost_inf.yaml", data=infer, store_inference=True, train={"start_epoch": 1}, **run)
    said = tiled.type("sbatch -N 5 -t 60 scripts/train_cori.sh configs/ghost3d.yaml")
    assert "2 rank(s)" in said
    return tiled


def test_tiles_go_below_scratch_larsim(tiled):
    names = sorted(path.name for path in (tiled.scratch / "out_dir").glob("*_xy-TPC1.h5"))
    assert [name[:6] for name in names] == ["batch0", "batch0", "batch1", "batch1"]


def test_tiling_as_a_job_does_the_same(tiled):
    tiled.type("sbatch -N 2 -t 30 scripts/make_batches_cori.sh -i parsed_dir -o by_job -t 1 -b 1")
    for path in (tiled.scratch / "by_job").glob("*.h5"):
        with shards.Shard(path, XY) as job, shards.Shard(tiled.scratch / "out_dir" / path.name, XY) as here:
            assert job.digest == here.digest
    assert len(list((tiled.scratch / "by_job").glob("*.h5"))) == 4


def test_joining_takes_two_fillers(tiled):
    for tpc in (5, 9):
        tiled.type(f"scripts/make_batches.sh -i parsed_dir -o out_dir -t {tpc} -b 1")
    tiled.type(f"python3 make_batches.py '{tiled.scratch / 'out_dir'}' a a")
    assert len(list((tiled.scratch / "out_dir").glob("*_xy-TPC159.h5"))) == 4


def test_training_on_the_cluster_and_inference_on_the_login_node(trained):
    run = trained.scratch.parent / "ghost"
    assert len(summary.read(run / "summaries.csv")) == 2
    said = trained.type("scripts/train_local.sh configs/ghost_inf.yaml --resume -v")
    assert len(list((run / "inference").glob("epoch1-*_yinf-*.h5"))) == 2, said
    trained.type("sbatch -N 5 -t 60 scripts/train_cori.sh configs/ghost3d.yaml")  # it is done, and says so


def test_post_processing_solves_for_the_charge(trained):
    run = trained.scratch.parent / "ghost"
    trained.type("scripts/train_local.sh configs/ghost_inf.yaml --resume 1")
    trained.type(
        f"./postproc.py '{trained.scratch / 'out_dir'}' parsed_dir '{run / 'inference'}' solved --threshold 0"
    )
    assert len(list((trained.folder / "solved").glob("*.h5"))) == 2


def test_train_without_a_config_says_hello(desk):
    assert "hello from rank 0 of 1" in desk.type("./train.py")
