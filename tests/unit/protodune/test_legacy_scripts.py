"""Old names and flags become hpcreco's; the batch scripts ask Slurm for what the job scripts ask for."""

from __future__ import annotations

import re

import pytest

from hpcreco import legacy
from hpcreco.experiments.protodune.legacy_scripts import WRAPPERS, make_batches, postproc, train


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "train hello"),
        ("configs/ghost3d.yaml --resume -v", "train configs/ghost3d.yaml --resume --verbose"),
        ("ghost_inf.yaml --resume 24", "train ghost_inf.yaml --resume 24"),
        ("a.yaml -d mpi", "train a.yaml --backend mpi"),
        (
            "-d nccl --rank-gpu --ranks-per-node 8 a.yaml --set seed=2",
            "train a.yaml --set seed=2 --backend nccl",
        ),
    ],
)
def test_train(old, new):
    assert train(old.split()) == new.split()


def test_a_gpu_by_number_is_the_only_one_seen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    import os

    assert train(["a.yaml", "--gpu", "2"]) == ["train", "a.yaml"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_make_batches_tiles_or_joins():
    assert make_batches(["p", "o", "5", "20"]) == ["tile", "-i", "p", "-o", "o", "-t", "5", "-b", "20"]
    assert make_batches(["/xy", "a", "a"]) == ["join-tpcs", "-i", "/xy", "-o", "/xy"]


def test_postproc():
    assert postproc("xy parsed yinf out".split()) == "solve yinf --xy xy -i parsed -o out".split()


@pytest.mark.parametrize(
    ("script", "job"), [("make_batches_cori", "tile"), ("train_cori", "train"), ("train_cgpu", "train")]
)
def test_batch_scripts_have_the_options_of_the_job_scripts(script, job, repository):
    def options(text):
        return re.findall(r"^#SBATCH (.*)$", text, re.M)

    ours = options(WRAPPERS.scripts[f"scripts/{script}.sh"].text)
    expected = options((repository / "jobs" / f"{job}.sl").read_text())
    assert ours[: len(expected)] == expected
    assert all("per-node" in option for option in ours[len(expected) :])


def test_configs_of_the_user_are_not_replaced(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/ghost3d.yaml").write_text("mine")
    legacy.install(tmp_path, [WRAPPERS])
    assert (tmp_path / "configs/ghost3d.yaml").read_text() == "mine"
    assert (tmp_path / "configs/ghost_inf.yaml").is_file()
    with pytest.raises(legacy.LegacyError, match="make_batches.py.*already"):
        legacy.install(tmp_path, [WRAPPERS])
