"""Requests to stop: signals and the job's time limit."""

import os
import signal
import subprocess
import sys

import pytest

from hpcreco.train.stop import Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_remembered_and_the_old_handler_comes_back(number):
    before = signal.getsignal(number)
    with Stop({}) as stop:
        assert not stop.requested()
        os.kill(os.getpid(), number)
        assert stop.requested()
        assert stop.reason == signal.Signals(number).name
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("number", "pause", "ends"),
    [("SIGTERM", 1.2, False), ("SIGUSR2", 0.0, False), ("SIGINT", 0.0, False), ("SIGINT", 1.2, True)],
)
def test_only_a_second_interrupt_after_a_while_ends_the_process(number, pause, ends):
    """Launchers repeat TERM, and a terminal and a launcher may both deliver one Ctrl-C; a save must survive that."""
    code = (
        "import os, signal\nfrom hpcreco.train import stop as module\nnow = 100.0\n"
        "class Clock:\n monotonic = staticmethod(lambda: now)\nmodule.time = Clock\nwith module.Stop({}) as stop:\n"
        f" os.kill(os.getpid(), signal.{number})\n now += {pause}\n os.kill(os.getpid(), signal.{number})\n"
        " print(stop.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode == -signal.SIGINT) is ends
    assert done.stdout == ("" if ends else f"{number}\n")


def test_the_time_limit_leaves_room_for_steps_and_a_save(monkeypatch):
    monkeypatch.setattr("hpcreco.train.stop.time.time", lambda: 1e9)
    stop = Stop({"SLURM_JOB_END_TIME": str(10**9 + 100)}, save_margin=30)
    stop.step_took(300.0)  # the first step compiles kernels
    assert not stop.requested()
    stop.step_took(30.0)
    assert stop.requested()
    assert "time limit" in stop.reason
