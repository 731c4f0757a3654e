"""`hpcreco status` of made-up runs, with and without a Slurm to ask."""

from __future__ import annotations

import json
import os
import time

import pytest
import yaml

from hpcreco import attempts, cli
from hpcreco.slurm import pace, progress, queue
from hpcreco.slurm.queue import JobState

HEADER = ("epoch", "train_loss", "train_time", "valid_loss", "valid_time", "events", "steps", "stage")


def unknown(job):
    return JobState(job)


def running(**more):
    return lambda job: JobState(job, "RUNNING", nodes="node[1-5]", **more)


@pytest.fixture
def run(tmp_path):
    """A run of 10 epochs, of which three are over: 100 s of training and 20 s of validation each."""
    folder = tmp_path / "run"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/0.yaml").write_text(yaml.safe_dump({"epochs": 5, "iterations": None}))
    (folder / "configs/1.yaml").write_text(yaml.safe_dump({"epochs": 10, "iterations": None}))
    rows = [(epoch, 1.0 / (epoch + 1), 100.0, "nan", 20.0, 400, 50, "main") for epoch in range(3)]
    text = "\n".join("\t".join(map(str, row)) for row in [HEADER, *rows]) + "\n"
    (folder / "summaries.csv").write_text(text)
    record = attempts.Record(folder / "attempts.csv", 5, {"SLURM_JOB_ID": "7"})
    record.start(0)
    return folder


def finish(run, outcome, reason=""):
    attempts.Record(run / "attempts.csv", 5, {"SLURM_JOB_ID": "7"}).end(outcome, 150, reason)


def test_epochs_left_make_the_expected_end(run):
    now = (run / "summaries.csv").stat().st_mtime + 30  # half a minute into the fourth epoch
    found = progress.look(run, running(), lambda: now)
    assert found.state == "training"
    assert (found.epoch, found.epochs, found.step) == (2, 10, 150)
    assert found.pace == pace.Pace(2.0, 120.0, 4.0, 50.0)
    assert found.seconds_left == 7 * 120
    assert found.expected_end == pytest.approx(now + 7 * 120 - 30)


def test_iterations_left_make_it_too():
    speed = pace.Pace(step_seconds=2.0, epoch_seconds=120.0, events_per_second=4.0, steps_per_epoch=50.0)
    assert pace.seconds_left(speed, {"iterations": 400}, 2, 150) == 250 * 120 / 50
    assert pace.seconds_left(speed, {"iterations": 100}, 2, 150) == 0
    assert pace.seconds_left(speed, {}, 2, 150) is None


def test_only_the_last_epochs_make_the_pace():
    slow = {"train_time": "900", "valid_time": "0", "events": "1", "steps": "1"}
    fast = {"train_time": "10", "valid_time": "2", "events": "20", "steps": "5"}
    assert pace.pace([slow, fast, fast, fast]) == pace.Pace(2.0, 12.0, 2.0, 5.0)
    assert pace.pace([]) is None


@pytest.mark.parametrize(
    ("outcome", "state"), [("done", "done"), ("stopped", "stopped"), ("failed", "failed"), (None, "lost")]
)
def test_without_slurm_the_last_attempt_says_how_it_is(run, outcome, state):
    if outcome:
        finish(run, outcome, "because")
    found = progress.look(run, unknown)
    assert found.state == state
    assert found.expected_end is None


def test_a_beating_lock_is_a_run_in_training(run):
    (run / ".lock").write_text("{}")
    assert progress.look(run, unknown).state == "training"
    assert progress.look(run, lambda job: JobState(job, "FAILED")).state == "lost"  # Slurm knows better
    os.utime(run / ".lock", (0, time.time() - 1000))
    assert progress.look(run, unknown).state == "lost"


def test_a_job_in_the_queue_is_found_before_it_begins(tmp_path):
    (tmp_path / "jobs.csv").write_text(
        f"time\tjob\tverb\tlog\n2026-01-01T00:00:00+0000\t9\ttrain\t{tmp_path}/x.out\n"
    )
    asked = []

    def ask(job):
        asked.append(job)
        return JobState(job, "PENDING", "Priority")

    found = progress.look(tmp_path, ask)
    assert (asked, found.state, found.log) == (["9"], "queued", f"{tmp_path}/x.out")
    assert progress.look(tmp_path, unknown).state == "not started"


@pytest.mark.parametrize(
    ("ended", "state"), [("FAILED", "failed"), ("TIMEOUT", "failed"), ("COMPLETED", "not started")]
)
def test_a_job_that_ended_before_training_began_is_told_from_one_never_sent(tmp_path, ended, state):
    (tmp_path / "jobs.csv").write_text(
        f"time\tjob\tverb\tlog\n2026-01-01T00:00:00+0000\t9\ttrain\t{tmp_path}/log\n"
    )
    (tmp_path / "log").write_text("hpcreco: error: the launcher (srun) promised 5 processes but MPI sees 1\n")
    found = progress.look(tmp_path, lambda job: JobState(job, ended))
    assert found.state == state
    assert "promised 5 processes" in found.error


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(progress.StatusError, match="no training has begun"):
        progress.find_run(str(tmp_path))


def test_the_last_error_is_the_cause_and_not_what_slurm_says_of_it(run, tmp_path):
    log = tmp_path / "job.out"
    log.write_text(
        "epoch 1\nhpcreco: error: the disk is full\nterminate called after throwing 'std::system_error'\n"
        "srun: error: node2: task 1: Exited with exit code 1\n"
        "srun: Force Terminated StepId=7.0\n"
    )
    finish(run, "failed")
    found = progress.look(run, lambda job: JobState(job, "FAILED", log=str(log)))
    assert found.error == "hpcreco: error: the disk is full (job.out)"


def test_the_verb_shows_it_plainly_and_as_json(run, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    finish(run, "stopped", "SIGUSR2")
    assert cli.main(["status", str(run)]) == 0
    text = capsys.readouterr().out
    assert "stopped at step 150: SIGUSR2" in text
    assert "3 of 10" in text
    assert "14 min 00 s of training" in text
    assert "\x1b" not in text
    assert cli.main(["status", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 10


def test_a_config_stands_for_its_run(run, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    path = run.parent / "c.yaml"
    path.write_text(f"output_dir: {run}\n")
    assert cli.main(["status", str(path)]) == 0
    assert str(run) in capsys.readouterr().out
    assert cli.main(["status", "no_such_run"]) == 2
    assert "neither the folder of a run nor a config" in capsys.readouterr().err
    assert cli.main(["status"]) == 2


SCONTROL = (
    "JobId=7 JobName=hpcreco-train JobState=RUNNING Reason=None Dependency=(null) Restarts=2 TimeLimit=01:00:00 "
    "StartTime=2026-01-01T10:00:00 EndTime=2026-01-01T11:00:00 NodeList=node[1-5] StdOut=/home/u/x-7.out \n"
)


def test_scontrols_words_are_read():
    state = queue.parse_scontrol("7", SCONTROL)
    assert state is not None
    assert (state.state, state.reason, state.nodes, state.restarts, state.log) == (
        "RUNNING", "", "node[1-5]", 2, "/home/u/x-7.out",
    )  # fmt: skip
    assert state.ends == time.mktime(time.strptime("2026-01-01 11", "%Y-%m-%d %H"))
    assert queue.parse_scontrol("7", "slurm_load_jobs error: Invalid job id specified") is None


def test_saccts_words_are_read():
    state = queue.parse_sacct("7", "CANCELLED by 0|node1|01:00:00\n")
    assert state is not None and state.state == "CANCELLED"
    assert queue.parse_sacct("7", "garbage\n") is None


def test_commands_that_fail_or_are_missing_leave_the_state_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue.ask("7") == JobState("7")
    for name in ("scontrol", "sacct"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    assert queue.ask("7") == JobState("7")
