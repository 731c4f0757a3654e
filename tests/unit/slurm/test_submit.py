"""`hpcreco submit`: the sbatch command, and what it refuses before anything is queued."""

from __future__ import annotations

import os
import shlex

import pytest

from hpcreco import cli
from hpcreco.slurm import scripts
from hpcreco.slurm.command import Job, log_of

COLUMNS = ("epoch", "train_time", "valid_time", "events", "steps")


def submit(*arguments):
    return cli.main(["submit", *arguments])


def words(noted):
    return noted.read_text().splitlines()


def test_a_job_is_sent_with_all_that_was_asked_for(sbatch, capsys):
    arguments = ["train", "ghost3d_tiny", "-N", "5", "-t", "60", "--after", "7", "--after", "8"]
    more = ["--sbatch", "-A m1234 -q debug", "--", "--set", "seed=2"]
    assert submit(*arguments, *more) == 0
    sent = words(sbatch)
    assert {"--nodes=5", "--time=60", "--dependency=afterok:7:8", "--kill-on-invalid-dep=yes"} <= set(sent)
    script = next(n for n, word in enumerate(sent) if word.endswith("train.sl"))
    assert sent[script + 1 :] == ["ghost3d_tiny", "--set", "seed=2"]
    assert sent[script - 4 : script] == ["-A", "m1234", "-q", "debug"]  # nearest to the script: they win
    export = next(word for word in sent if word.startswith("--export="))
    assert export.startswith("--export=ALL,HPCRECO_SITE=local,HPCRECO_IMAGE=,HPCRECO_JOBS=/")
    told = capsys.readouterr().out.splitlines()
    assert "job 123" in told
    assert f"log {os.getcwd()}/hpcreco-train-123.out" in told
    assert shlex.split(told[0])[1:] == sent


def test_the_run_remembers_its_job(sbatch, tmp_path, capsys):
    assert submit("train", "ghost3d_tiny") == 0
    rows = (tmp_path / "runs/ghost3d_tiny/jobs.csv").read_text().splitlines()
    assert rows[0].split("\t") == ["time", "job", "verb", "log"]
    assert rows[1].split("\t")[1:3] == ["123", "train"]


def test_sites_options_travel_as_flags(sbatch):
    assert submit("train", "ghost3d_tiny", "--site", "perlmutter", "--container", "user/hpcreco:gpu") == 0
    sent = words(sbatch)
    assert {"--constraint=gpu", "--gpus-per-node=4", "--ntasks-per-node=4"} <= set(sent)
    assert "HPCRECO_IMAGE=user/hpcreco:gpu," in next(word for word in sent if word.startswith("--export="))


def test_a_file_wise_verb_passes_everything_on(sbatch, capsys):
    assert submit("tile", "--array", "0-7", "--", "-i", "parsed", "-o", "xy", "-t", "1") == 0
    sent = words(sbatch)
    assert sent[-6:] == ["-i", "parsed", "-o", "xy", "-t", "1"]
    assert {"--array=0-7", "--output=%x-%A_%a.out"} <= set(sent)
    assert "hpcreco-tile-123_%a.out" in capsys.readouterr().out


def test_the_events_of_an_experiment_are_simulated_by_array_tasks(sbatch):
    command = ["protodune", "--preset", "full", "--types", "Mu", "Pion", "--seed", "4", "--out", "parsed"]
    assert submit("simulate", "--array", "0-7", "--", *command) == 0
    sent = words(sbatch)
    assert sent[-len(command) :] == command
    assert "--array=0-7" in sent
    assert any(word.endswith("simulate.sl") for word in sent)


def test_a_dry_run_shows_the_command_and_the_script_and_sends_nothing(sbatch, capsys):
    assert submit("train", "ghost3d_tiny", "-N", "5", "--dry-run") == 0
    text = capsys.readouterr().out
    assert text.startswith("sbatch --parsable")
    assert "#SBATCH --signal=USR2@" in text
    assert not sbatch.exists()
    assert not os.path.exists("runs")


def test_a_dry_run_needs_no_sbatch(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert submit("train", "ghost3d_tiny", "--dry-run") == 0
    assert submit("train", "ghost3d_tiny", "--container", "docker://user/image:1") == 2
    assert "no sbatch on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "ghost3d_tiny", "--site", "perlmuter"], "did you mean 'perlmutter'"),
        (["trian", "ghost3d_tiny"], "did you mean 'train'"),
        (["train", "ghost3d_tni"], "did you mean 'ghost3d_tiny'"),
        (["train"], "name a config"),
        (["train", "ghost3d_tiny", "--container", "none.sif"], "none.sif: there is no such image"),
        (["train", "ghost3d_tiny", "--container", "./folder"], "there is no such image"),
        (["train", "ghost3d_tiny", "--container", "reco"], "an address (docker://reco)"),
        (["train", "ghost3d_tiny", "-t", "60", "--time-min", "2"], "--time-min 2: the job is warned 120 s"),
        (["train", "ghost3d_tiny", "-t", "60", "--time-min", "1:30:00"], "more than the time limit 60"),
        (["train", "ghost3d_tiny", "-t", "2"], "ask for more than 2 minutes"),
        (["train", "ghost3d_tiny", "-t", "soon"], "write minutes"),
        (["train", "ghost3d_tiny", "--array", "0-3"], "train is one job"),
        (["train", "ghost3d_tiny", "-N", "0"], "at least one node"),
        (["tile", "--array", "1,5", "--", "-i", "x"], "write a range"),
        (["tile", "--after", "ok:5", "--", "-i", "x"], "write a job's number"),
        (["train", "ghost_inf_tiny"], "hpcreco submit infer"),
        (["train", "ghost3d_tiny", "--", "--set", "trian.n_epochs=2"], "unknown key"),
        (["train", "ghost3d_tiny", "--container", "docker://a,b:1"], "cannot pass a comma"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_queued(arguments, says, sbatch, capsys):
    assert submit(*arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not sbatch.exists()


def test_a_runtime_that_knows_names_is_trusted(sbatch, monkeypatch):
    """Whether Shifter or podman-hpc has an image, only they can tell."""
    monkeypatch.setenv("HPCRECO_RUNTIME", "podman-hpc")
    assert submit("train", "ghost3d_tiny", "--container", "hpcreco:gpu") == 0
    monkeypatch.setenv("HPCRECO_RUNTIME", "apptainer")
    assert submit("train", "ghost3d_tiny", "--container", "user/hpcreco:gpu", "--site", "perlmutter") == 2


def test_a_flexible_time_limit(sbatch):
    assert submit("train", "ghost3d_tiny", "-t", "360", "--time-min", "60") == 0
    assert {"--time=360", "--time-min=60"} <= set(words(sbatch))


def test_without_an_image_the_job_needs_hpcreco_on_path(sbatch, capsys):
    (sbatch.parent / "bin/hpcreco").unlink()
    assert submit("train", "ghost3d_tiny") == 2
    assert "activate its environment" in capsys.readouterr().err


@pytest.mark.parametrize(("step_seconds", "code"), [(170, 0), (190, 2)])
def test_a_time_limit_shorter_than_a_step_is_refused(step_seconds, code, sbatch, tmp_path, capsys):
    """Five minutes less two of warning leave 180 s for a step; the run's own summaries say how long one takes."""
    run = tmp_path / "runs/ghost3d_tiny"
    run.mkdir(parents=True)
    row = (0, 4 * step_seconds, 10, 8, 4)
    (run / "summaries.csv").write_text("\t".join(COLUMNS) + "\n" + "\t".join(map(str, row)) + "\n")
    assert submit("train", "ghost3d_tiny", "-t", "5") == code
    if code:
        assert f"takes {step_seconds} s" in capsys.readouterr().err


def test_sbatchs_own_refusal_is_passed_on(sbatch, capsys):
    (sbatch.parent / "bin/sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n"
    )
    assert submit("train", "ghost3d_tiny") == 2
    assert "no such partition" in capsys.readouterr().err


def test_logs_are_named_as_slurm_names_them(tmp_path):
    named = ["--job-name=a", "--output=%x-%j.out"]
    assert log_of("5", named, tmp_path) == tmp_path / "a-5.out"
    assert log_of("5", [*named, "-J", "b", "-o", "logs/%x.%A_%a"], tmp_path) == tmp_path / "logs/b.5_%a"


def test_the_users_words_come_last(tmp_path):
    job = Job("train", ("c.yaml",), scripts.shipped_jobs(), time="60", more=("--time=90",))
    assert scripts.value_of("--time", job.all_options(), "-t") == "90"
