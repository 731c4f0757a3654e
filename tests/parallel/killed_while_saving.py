"""Trains in child after child of a process that has imported everything once, and kills each at a moment of its own."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch._dynamo  # noqa: F401 - an optimizer imports it
import toy_two_tables_task  # noqa: F401

from hpcreco import cli
from hpcreco.train import checkpoint, run  # noqa: F401

KILLS = 12


def child(command: list[str]) -> int:
    """The process id of a child that runs a command line."""
    pid = os.fork()
    if pid == 0:
        os._exit(cli.main(command))
    return pid


def kill_soon_after_a_save(pid: int, out: Path, rng: random.Random) -> None:
    """Lets a training save once or twice more; it may also come to its end."""
    seen, deadline = len(checkpoint.found(out)), time.monotonic() + 60
    while len(checkpoint.found(out)) <= seen + 1 and time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def damaged(message: str) -> None:
    """Not even a damaged checkpoint is passed over."""
    raise AssertionError(message)


out, command = Path(sys.argv[1]), sys.argv[2:]
rng = random.Random(3)
for _ in range(KILLS):
    kill_soon_after_a_save(child(command), out, rng)
    print("saved when killed:", len(checkpoint.found(out)), flush=True)
    if checkpoint.found(out):
        checkpoint.load_latest(out, notice=damaged)
_, status = os.waitpid(child(command), 0)
sys.exit(os.waitstatus_to_exitcode(status))
