"""How ranks leave together, so that the launcher's exit code is the one they agreed on.

`srun --kill-on-bad-exit` kills the other ranks as soon as one leaves with an exit code other than 0, and then reports
the kill (137 or 143) instead of the code. So rank 0 speaks for all: the others leave with 0, and rank 0 follows after
a moment.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Mapping

from hpcreco.world import World, WorldError, detect

#: seconds for the other ranks' interpreters to shut down before rank 0 leaves with the code
LINGER = 3.0


def agreed(code: int, world: World | None = None) -> int:
    """The exit code of this rank when every rank ends with `code`; returns on rank 0 when the others have left."""
    world = _world() if world is None else world
    if code == 0 or world.size == 1:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    _finish_mpi()
    if world.rank != 0:
        return 0
    time.sleep(LINGER)
    return code


def refused(error: Exception, code: int, environ: Mapping[str, str] = os.environ) -> int:
    """The exit code of this rank when it refuses to go on with `error`, as the other ranks in all likelihood do.

    An error marked `everywhere` is certain to be raised on all ranks. Any other may be this rank's alone; then it may
    leave quietly only where srun ends the step soon after the first rank has left (SLURM_WAIT, set by job scripts).
    """
    if getattr(error, "everywhere", False):
        return agreed(code)
    world = _world()
    if world.launcher != "srun" or world.size == 1 or "SLURM_WAIT" not in environ:
        return code
    if world.rank != 0:
        return 0
    time.sleep(LINGER)
    return code


def deafen() -> None:
    """For a process that has its exit code: a job's warning that comes now must not turn "done" into "killed"."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def unread() -> bool:
    """Whether nobody reads what this process prints any more, as behind `| head`; then it goes nowhere from now on."""
    looker = select.poll()
    looker.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in looker.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _world() -> World:
    try:
        return detect()
    except WorldError:
        return World()


def _finish_mpi() -> None:
    """End MPI while all ranks are still there: its own end, at exit, would keep them until rank 0 leaves."""
    if "mpi4py.MPI" in sys.modules:
        from hpcreco import collective

        collective.finish()
