"""Asking a process of its own: one that crashes or hangs is an answer too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

PATIENCE = 120  # seconds for one library; the first import from a shared file system is slow
#: variables by which a launcher tells a process that it is a rank; a probe is not one
LAUNCHER_PREFIXES = ("PMI", "PMIX", "OMPI_", "MPI_LOCAL", "SLURM_", "HYDRA", "HYDI")


def ask(program: str, *arguments: str, launcher: tuple[str, ...] = ()) -> tuple[bool, str]:
    """Runs a small Python program; (True, what it printed) or (False, the last line of its complaint)."""
    command = [*launcher, sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=probe_environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PATIENCE} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    lines = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip()]
    killed = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return False, lines[-1].strip() if lines else killed


def probe_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what makes a process a rank of a launcher's job."""
    return {k: v for k, v in environ.items() if not k.startswith(LAUNCHER_PREFIXES)} | {
        "PYTHONWARNINGS": "ignore"
    }
