"""The watchdog of a single rank: silent while there is progress, the end of the process when there is none."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

from hpcreco.parallel.serial import Serial
from hpcreco.parallel.watchdog import Watchdog, abort_on_error

HEADER = """
import ctypes, sys, time, torch
from hpcreco.parallel import watchdog
from hpcreco.parallel.serial import Serial
ranks = Serial(torch.device("cpu"))
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEADER + body], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_hanging_process_ends_and_says_where_it_hung():
    ended = run(
        "def hang(): time.sleep(1000)\nwith watchdog.Watchdog(0.5, ranks) as dog:\n dog.beat(7)\n hang()"
    )
    assert ended.returncode == 1
    assert "rank 0 of 1" in ended.stderr
    assert "no progress for 0.5 s since step 7" in ended.stderr
    assert "in hang" in ended.stderr


def test_a_process_that_holds_the_interpreter_ends_too():
    """No Python thread can run then; the first re-arming needs one turn of the watchdog's thread."""
    ended = run(
        "watchdog._GRACE_SECONDS = 0.5\n"
        "def hold(): ctypes.PyDLL(None).sleep(1000)\n"
        "with watchdog.Watchdog(0.5, ranks):\n time.sleep(0.2)\n hold()"
    )
    assert ended.returncode == 1
    assert "in hold" in ended.stderr


def test_progress_keeps_a_process_alive_and_leaving_disarms():
    ended = run(
        "watchdog._GRACE_SECONDS = 0\n"
        "with watchdog.Watchdog(3, ranks) as dog:\n"
        " for n in range(40): dog.beat(n); time.sleep(0.1)\n"
        "time.sleep(3.5)\nprint('alive')"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alive\n", "")


def test_a_watchdog_without_a_timeout_starts_nothing():
    before = threading.active_count()
    with Watchdog(None, Serial(torch.device("cpu"))) as dog:
        dog.beat(1)
        assert threading.active_count() == before


class Witness(Serial):
    """One of two ranks; remembers with what code it was told to end the world."""

    size = 2

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.codes: list[int] = []

    def abort(self, code: int) -> None:
        self.codes.append(code)


@pytest.fixture
def witness(monkeypatch):
    monkeypatch.setattr("hpcreco.parallel.watchdog.threading.Timer", lambda *_: threading.Thread())
    return Witness()


class ForUserError(Exception):
    exit_code = 2


@pytest.mark.parametrize(
    ("error", "code"), [(KeyError("x"), 1), (ForUserError("no such file"), 2), (KeyboardInterrupt(), 1)]
)
def test_an_error_of_one_rank_ends_the_world(witness, capsys, error, code):
    with abort_on_error(witness):
        raise error
    assert witness.codes == [code]
    err = capsys.readouterr().err
    assert "hpcreco: error: rank 0 of 2 on" in err
    assert ("Traceback" in err) == (code == 1)


def test_ends_by_agreement_are_passed_on(witness):
    everywhere = ForUserError("all ranks raise this")
    everywhere.everywhere = True
    for error in (SystemExit(75), everywhere):
        with pytest.raises(type(error)), abort_on_error(witness):
            raise error
    with pytest.raises(KeyError), abort_on_error(Serial(torch.device("cpu"))):
        raise KeyError
    assert witness.codes == []
