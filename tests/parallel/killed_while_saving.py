"""Trains in child after child of a process that has imported everything once, and kills each at a moment of its own."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - an optimizer imports it
import toy_two_tables_task  # noqa: F401

from hpcreco import cli
from hpcreco.train import checkpoint, run  # noqa: F401

KILLS = 12
#: saves after which a child that is to be killed stands still, should its killer be late
SAVES = 3


def child(command: list[str], saves: int | None = None) -> int:
    """The process id of a child that runs a command line, as far as a number of saves."""
    pid = os.fork()
    if pid == 0:
        if saves is not None:
            stand_still_after(saves)
        os._exit(cli.main(command))
    return pid


def stand_still_after(saves: int) -> None:
    save, left, killer = checkpoint.save, iter(range(saves)), os.getppid()

    def counted(*arguments: Any) -> Any:
        if next(left, None) is None:
            while os.getppid() == killer:
                time.sleep(0.1)
            os._exit(1)
        return save(*arguments)

    checkpoint.save = counted


def kill_soon_after_a_save(pid: int, out: Path, rng: random.Random) -> None:
    """Lets a training save once or a few times more; it may also come to its end."""
    seen, deadline = newest(out), time.monotonic() + 300
    while newest(out) == seen and time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def newest(out: Path) -> str:
    """The name of the last checkpoint."""
    return max(((item.order, item.path.name) for item in checkpoint.found(out)), default=((), "none"))[1]


def damaged(message: str) -> None:
    """Not even a damaged checkpoint is passed over."""
    raise AssertionError(message)


out, command = Path(sys.argv[1]), sys.argv[2:]
rng = random.Random(3)
for _ in range(KILLS):
    kill_soon_after_a_save(child(command, SAVES), out, rng)
    print("saved when killed:", newest(out), flush=True)
    if checkpoint.found(out):
        checkpoint.load_latest(out, notice=damaged)
_, status = os.waitpid(child(command), 0)
sys.exit(os.waitstatus_to_exitcode(status))
