"""What a job script asks when srun has returned."""

from __future__ import annotations

import pytest
import yaml

from hpcreco import attempts, cli


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The environment of job 7, and a config whose run is in `tmp_path`."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", attempts.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    config = {
        "experiment": "toy_two_tables:EXPERIMENT",
        "output_dir": "somewhere",
        "epochs": 1,
        "settings": {"files": ["a.h5"]},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def ask(code, *command):
    return cli.main(["status", "--requeue", str(code), "--", *command])


def test_trainings_history_is_in_its_run(job, capsys):
    command = ["train", str(job / "c.yaml"), "--set", f"output_dir={job}/run", "--resume", "auto"]
    other = attempts.Record(job / "run/attempts.csv", 5, {"SLURM_JOB_ID": "6"})
    other.start(0)
    record = attempts.Record(job / "run/attempts.csv", 5)
    record.start(0)
    assert ask(143, *command) == 75
    record.end("stopped", 3, "SIGTERM")
    assert ask(75, *command) == 75
    assert "stopped by SIGTERM at step 3" in capsys.readouterr().out
    assert ask(0, *command) == 0
    assert ask(2, *command) == 76
    record.end("done", 9)
    assert ask(140, *command) == 0, "signalled after its work was done"


def test_a_job_lost_twice_after_one_checkpoint_stops_and_goes_on_after_a_newer(job, monkeypatch):
    command = ["train", str(job / "c.yaml"), "--set", f"output_dir={job}/run"]
    latest = job / "run/checkpoints/latest"
    latest.parent.mkdir(parents=True)
    path = job / "run/attempts.csv"
    attempts.Record(path, 5).start(0)
    latest.write_text("checkpoint_001.pth.tar\n")
    assert ask(143, *command) == 75
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    attempts.Record(path, 5).start(9, attempts.newest_checkpoint(job / "run"))
    assert ask(143, *command) == 76
    latest.write_text("checkpoint_002.pth.tar\n")
    assert ask(143, *command) == 75


def test_file_wise_history_is_where_the_script_wants_it(job, monkeypatch):
    path = job / ".hpcreco-7.csv"
    monkeypatch.setenv(attempts.VARIABLE, str(path))
    assert ask(1, "tile", "-i", "parsed") == 76
    attempts.Record(path, 2).start(3)
    assert ask(143, "tile", "-i", "parsed") == 75
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    attempts.Record(path, 2).start(3)
    assert ask(143, "tile", "-i", "parsed") == 76
