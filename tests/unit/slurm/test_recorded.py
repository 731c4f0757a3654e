"""Training and file-wise jobs leave the rows that the requeue decision needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy_two_tables import write_shard

from hpcreco import attempts, filewise

TOYS = Path(__file__).parent.parent.parent / "toys"


@pytest.fixture
def train(tmp_path):
    """``train(**environment) -> exit code`` of the toy experiment in ``tmp_path/run``, resumed if it can be."""
    config = {
        "experiment": "toy_two_tables:EXPERIMENT",
        "output_dir": str(tmp_path / "run"),
        "iterations": 12,
        "steps": {"mode": "events", "size": 8},
        "settings": {"files": [str(write_shard(tmp_path / "a.h5", 11, 1))], "stages": 1},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))

    def run(**environment):
        command = [sys.executable, "-m", "hpcreco", "train", tmp_path / "toy.yaml", "--resume", "auto"]
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PMI_"))}
        env = {**plain, "PYTHONPATH": str(TOYS), "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, env=env, capture_output=True, check=False, timeout=400).returncode

    return run


@pytest.mark.slow
def test_training_notes_every_start_and_end(train, tmp_path):
    path = tmp_path / "run/attempts.csv"
    assert train(SLURM_JOB_ID="7", TOY_TERM="0:6") == 75
    (first,) = attempts.read(path)
    assert (first.job, first.outcome, first.reason, first.resumed) == ("7", "stopped", "SIGTERM", "")
    assert 0 < first.step < 12
    newest = attempts.newest_checkpoint(tmp_path / "run")
    assert train(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1", TOY_KILL="0:10") == -signal.SIGKILL
    _, second = attempts.read(path)
    assert (second.restart, second.outcome, second.from_step, second.resumed) == (
        1,
        "killed",
        first.step,
        newest,
    )
    assert train(TOY_RAISE="0:10") == 1
    assert attempts.read(path)[-1].outcome == "failed"
    assert "a toy fault" in attempts.read(path)[-1].reason
    assert train() == 0
    assert (attempts.read(path)[-1].outcome, attempts.read(path)[-1].step) == ("done", 12)
    rows = path.read_text()
    assert train() == 0  # nothing to do, nothing to note
    assert path.read_text() == rows


def test_a_file_wise_job_notes_how_many_files_are_finished(tmp_path, monkeypatch):
    path = tmp_path / "attempts.csv"
    jobs = [filewise.Job(f"{n}", (), (tmp_path / f"{n}.out",)) for n in range(4)]

    def work(job):
        if job.key == "3":
            raise RuntimeError("a broken file")
        job.outputs[0].touch()

    def run():
        unfinished = lambda job: None if job.outputs[0].exists() else "missing"  # noqa: E731
        return filewise.run(jobs, work, finished=unfinished, title="toy")

    jobs[0].outputs[0].touch()
    assert run() == 1
    assert not path.exists()  # nobody wants to know
    jobs[1].outputs[0].unlink()
    monkeypatch.setenv(attempts.VARIABLE, str(path))
    assert run() == 1
    (noted,) = attempts.read(path)
    assert (noted.from_step, noted.step, noted.outcome, noted.reason) == (2, 3, "failed", "1 files failed")
