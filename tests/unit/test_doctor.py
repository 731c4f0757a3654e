"""doctor tells works, missing and broken apart, survives what crashes, and its exit code follows."""

from __future__ import annotations

import argparse
import errno
import json

import pytest

from hpcreco import doctor
from hpcreco.doctor import asking, libraries, machine, ranks
from hpcreco.doctor.finding import BROKEN, MISSING, WORKS, Finding, show
from hpcreco.doctor.libraries import Probe


def arguments(json: bool = True) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return parser.parse_args(["--json"] if json else [])


@pytest.mark.parametrize(
    ("module", "program", "state", "detail"),
    [
        ("json", "print('1.0 - fine')", WORKS, "1.0 - fine"),
        ("no_such_module_anywhere", "print('never run')", MISSING, "not installed"),
        ("json", "raise OSError('libnothing.so: cannot open')", BROKEN, "libnothing.so: cannot open"),
        ("json", "import os; os.abort()", BROKEN, "signal 6"),
        ("json", "raise SystemExit(7)", BROKEN, "exit code 7"),
    ],
)
def test_a_library_works_is_missing_or_broken(module, program, state, detail):
    found = libraries.examine(Probe(module, program, "the remedy"))
    assert found.state == state
    assert detail in found.detail
    assert found.remedy == ("" if state == WORKS else "the remedy")


def test_a_library_that_hangs_is_broken(monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE", 1)
    found = libraries.examine(Probe("json", "import time; time.sleep(60)", "the remedy"))
    assert found.state == BROKEN
    assert "no answer" in found.detail


@pytest.mark.parametrize(
    ("probe", "code"),
    [
        (Probe("json", "print(1)", "", needed=True), 0),
        (Probe("no_such_module_anywhere", "", "", needed=True), 1),
        (Probe("no_such_module_anywhere", "", "", needed=False), 0),
        (Probe("json", "raise OSError", "", needed=False), 1),  # installed and broken: worth an alarm
    ],
)
def test_exit_code_and_json(probe, code, monkeypatch, capsys):
    monkeypatch.setattr(libraries, "PROBES", (probe,))
    monkeypatch.setattr(machine, "examine", list)
    monkeypatch.setattr(ranks, "examine_launch", lambda here: Finding("mpiexec", WORKS))
    assert doctor.run(arguments()) == code
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is (code == 0)
    assert any(f["name"] == probe.module for f in told["findings"])


def test_the_table_keeps_brackets_and_shows_remedies(capsys):
    show([Finding("part", BROKEN, "saw [0]", "do [this]")], healthy=False)
    text = capsys.readouterr().out
    assert "saw [0]" in text
    assert "-> do [this]" in text


def test_every_remedy_is_given_when_something_is_wrong():
    assert all(probe.remedy for probe in libraries.PROBES)


def test_a_promise_without_a_rank_is_broken(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.delenv("RANK", raising=False)
    here, found = ranks.examine_world()
    assert here is None
    assert found.state == BROKEN
    assert found.remedy


def test_an_unwritable_folder_is_named(tmp_path):
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    found = machine.examine_folder("cache", not_a_folder / "below", "set THAT")
    assert found.state == BROKEN
    assert str(not_a_folder / "below") in found.detail


def test_where_nothing_can_be_written_that_is_said(monkeypatch, tmp_path):
    def nowhere(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.chdir(tmp_path)
    for name in ("TemporaryDirectory", "NamedTemporaryFile", "gettempdir"):
        monkeypatch.setattr(f"tempfile.{name}", nowhere)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for found in (machine.examine_locking(), *machine.examine_caches()):
        assert found.state == BROKEN
        assert "No usable" in found.detail
        assert "writable folder" in found.remedy


def test_probes_are_not_ranks_of_the_launcher(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert not {"PMI_SIZE", "SLURM_STEP_NUM_TASKS"} & set(asking.probe_environment())


@pytest.mark.mpi
def test_two_ranks_print_once_and_see_each_other(mpiexec):
    program = (
        "import argparse; from hpcreco import doctor\n"
        "from hpcreco.doctor import libraries, machine; libraries.PROBES = (); machine.examine = list\n"
    )
    program += "raise SystemExit(doctor.run(argparse.Namespace(json=True)))"
    done = mpiexec(2, ["-c", program])
    told = json.loads(done.out)
    world = next(f for f in told["findings"] if f["name"] == "world")
    assert world["state"] == WORKS
    assert "2 ranks see each other" in world["detail"]
