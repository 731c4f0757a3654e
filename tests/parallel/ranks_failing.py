"""Ranks that take steps together until rank 1 fails in the way its argument says."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import torch

from hpcreco import parallel, world
from hpcreco.parallel.watchdog import Watchdog, abort_on_error


class BrokenFileError(ValueError):
    """An error meant for the user."""

    exit_code = 1


def fail(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "raising":
        raise KeyError("nobody caught this")
    if how == "refusing":
        raise BrokenFileError("the file is broken")
    if how == "sleeping":
        time.sleep(1000)
    if how == "holding":  # never lets another Python thread run
        ctypes.PyDLL(None).sleep(1000)


backend, how, timeout = sys.argv[1:]
ranks = parallel.open(backend, world.detect())
with abort_on_error(ranks):
    os.write(1, b"rank of process %d\n" % os.getpid())  # whole, whatever others print
    for _ in range(5):  # unwatched, for the first sums make connections
        ranks.sum_([torch.ones(100)])
    with Watchdog(float(timeout), ranks) as watchdog:
        watchdog.beat(4)
        if ranks.rank == 1:
            os.write(1, b"failing\n")
            fail(how)
        ranks.sum_([torch.ones(100)])
