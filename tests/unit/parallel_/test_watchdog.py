"""The watchdog of a single rank: silent while there is progress, the end of the process when there is none."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import pytest
import torch

from hpcreco.parallel import watchdog
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
        [sys.executable, "-c", HEADER + body], capture_output=True, text=True, timeout=400, check=False
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
    """No Python thread can run then, not even the watchdog's for the first time."""
    ended = run(
        "watchdog._GRACE_SECONDS = 0.5\n"
        "def hold(): ctypes.PyDLL(None).sleep(1000)\n"
        "watchdog.threading.Thread.start = lambda thread: None\n"
        "with watchdog.Watchdog(0.5, ranks):\n hold()"
    )
    assert ended.returncode == 1
    assert "in hold" in ended.stderr


class Clock:
    """Time as the test has it pass, and faulthandler's timer in it; `looked` when the watchdog has looked at both."""

    def __init__(self) -> None:
        self.now, self.due, self.looked = 100.0, math.inf, threading.Semaphore(0)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait_for_a_look(self) -> None:
        """Returns when the watchdog has looked anew; one look may have begun earlier."""
        while self.looked.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self.looked.acquire(timeout=300)

    def dump_traceback_later(self, seconds: float, **_: object) -> None:
        self.due = self.now + seconds
        self.looked.release()

    def cancel_dump_traceback_later(self) -> None:
        self.due = math.inf


def test_progress_keeps_a_process_alive_and_leaving_disarms(monkeypatch, witness):
    clock = Clock()
    monkeypatch.setattr("hpcreco.parallel.watchdog.time", clock)
    monkeypatch.setattr("hpcreco.parallel.watchdog.faulthandler", clock)
    timeout = 0.01
    with Watchdog(timeout, witness) as dog:
        for step in range(20):
            clock.now += 0.8 * timeout
            clock.wait_for_a_look()
            assert clock.now < clock.due < math.inf
            dog.beat(step)
            clock.wait_for_a_look()
            assert clock.due == pytest.approx(clock.now + timeout + watchdog._GRACE_SECONDS)
    assert witness.codes == []
    assert clock.due == math.inf
    assert not dog._thread.is_alive()


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
