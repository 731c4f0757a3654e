"""A Slurm cluster of emulated nodes, as tests see it: commands in its environment, jobs and their ends."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcreco.doctor.asking import probe_environment
from tests.conftest import REPOSITORY

TOYS = REPOSITORY / "tests" / "toys"
#: node1 to node5 run what needs five nodes; of the others each test that takes nodes away has its own
NODES = 10
FIVE = "node[1-5]"
#: seconds for anything that takes a minute or two on an idle machine
PATIENCE = 420.0

_TOOL = REPOSITORY / "tools" / "slurm-cluster"
_FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


@dataclass(frozen=True)
class Cluster:
    """A running cluster; jobs are sent from `folder`, and their logs lie there."""

    folder: Path
    environment: dict[str, str]
    over: threading.Event = field(default_factory=threading.Event)

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        timeout: float = 300,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody logged in to the cluster would; with `check` a failure fails the test."""
        words = [str(word) for word in command]
        ended = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment | (env or {}),
            cwd=self.folder,
        )
        if check and ended.returncode != 0:
            pytest.fail(f"{words} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended

    def submit(
        self, verb: str, *arguments: str | Path, on: str = FIVE, env: dict[str, str] | None = None
    ) -> str:
        """``hpcreco submit VERB ARGUMENTS`` on some of the nodes; returns the job's number."""
        head, dashes, tail = _split([str(word) for word in arguments])
        words = [verb, *head, f"--sbatch=--exclude={_others(on)}", *dashes, *tail]
        said = self.run("hpcreco", "submit", *words, env=env).stdout
        (number,) = re.findall(r"^job (\d+)$", said, re.M)
        return number

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job (or ARRAY_TASK); nothing of one that it does not know."""
        said = self.run("scontrol", "--oneliner", "show", "job", number, check=False).stdout
        return dict(re.findall(r"(\w+)=(\S*)", said.partition("\n")[0]))

    def ended(self, number: str, state: str = "COMPLETED") -> dict[str, str]:
        """What Slurm says of a job once it is over for good, which must be in `state`."""
        found = self.until(lambda: _final(self.job(number)), f"the end of job {number}", number)
        assert found["JobState"] == state, f"{found}\n{self.log(number)}"
        return found

    def until(self, condition: Callable[[], object], what: str, number: str = "") -> object:
        """Wait until `condition` returns something true, and return that."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            if time.monotonic() > deadline or self.over.is_set():
                pytest.fail(f"waited for {what}\n{self.job(number)}\n{self.log(number)}" if number else what)
            time.sleep(0.5)
        return found

    def log(self, number: str) -> str:
        """All that a job has written so far."""
        path = Path(self.job(number).get("StdOut", ""))
        return path.read_text() if path.is_file() else ""

    def tool(self, *arguments: str) -> None:
        """``tools/slurm-cluster ARGUMENTS``."""
        self.run(_TOOL, *arguments)


def start(folder: Path) -> Cluster:
    """A cluster of NODES nodes that ends with this process at the latest; skips the test where there is no Slurm."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [
        name for name in ("slurmctld", "slurmd", "munged", "srun") if shutil.which(name, path=path) is None
    ]
    if absent:
        pytest.skip(
            f"needs Slurm: no {', '.join(absent)} (`tools/setup cluster` installs it as root on Debian)"
        )
    state = tempfile.mkdtemp(prefix="hpcreco-slurm-", dir="/tmp")  # short: its sockets have long names
    environment = probe_environment() | {
        "PATH": path,
        "PYTHONPATH": f"{TOYS}:{REPOSITORY}",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "SLURM_CLUSTER_DIR": state,
        "SLURM_CLUSTER_CPUS": "16",
        "SLURM_CLUSTER_TIMEOUT": "20",
        "SLURM_CLUSTER_WAIT": "180",
        "SLURM_CLUSTER_OWNER": str(os.getpid()),
        "SLURM_CONF": f"{state}/slurm.conf",
    }
    said = ""
    for _ in range(3):  # between finding ports free and using them, somebody else may take one
        environment["SLURM_CLUSTER_PORT"] = str(free_ports(NODES + 1))
        up = subprocess.run([_TOOL, "up", str(NODES)], env=environment, capture_output=True, text=True)
        if up.returncode == 0:
            return Cluster(folder, environment)
        said = up.stderr
    shutil.rmtree(state, ignore_errors=True)
    pytest.fail(f"tools/slurm-cluster up failed:\n{said}")


def stop(cluster: Cluster) -> None:
    """Take the cluster down and remove its state."""
    cluster.over.set()
    subprocess.run([_TOOL, "down"], env=cluster.environment, timeout=120)
    shutil.rmtree(cluster.environment["SLURM_CLUSTER_DIR"], ignore_errors=True)


def _final(job: dict[str, str]) -> dict[str, str] | None:
    return job if job.get("JobState") in _FINAL else None


def _split(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


def _others(nodes: str) -> str:
    """The nodes that a job for `nodes` (node7, or node[1-5]) must keep away from, in Slurm's words."""
    low, _, high = re.sub(r"\D*([\d-]+)\D*", r"\1", nodes).partition("-")
    mine = range(int(low), int(high or low) + 1)
    return ",".join(f"node{number}" for number in range(1, NODES + 1) if number not in mine)


def free_ports(n: int) -> int:
    """The first of n neighbouring TCP ports that are free, below those that the kernel gives away by itself."""
    first = 20_000 + os.getpid() * 37 % 10_000
    for candidate in range(first, first + 2_000, n):
        if all(_free(port) for port in range(candidate, candidate + n)):
            return candidate
    pytest.fail("no free range of TCP ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
