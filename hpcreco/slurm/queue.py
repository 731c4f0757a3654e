"""What Slurm says of a job: squeue's and scontrol's word while it remembers, then sacct's where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass

_PATIENCE = 15.0  # seconds for a busy controller


@dataclass(frozen=True)
class JobState:
    """A job as Slurm knows it; `state` is Slurm's word (RUNNING, PENDING, ...) or "unknown"."""

    job: str
    state: str = "unknown"
    reason: str = ""
    nodes: str = ""
    restarts: int | None = None
    limit: str = ""
    ends: float | None = None  # Unix time at which its time limit is over
    starts: float | None = None  # Unix time at which a pending job is expected to begin
    log: str = ""

    @property
    def active(self) -> bool:
        """Is it queued, running or on its way to either?"""
        return self.state in ("RUNNING", "PENDING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED")

    @property
    def failed(self) -> bool:
        """Has it ended by itself or by its node, and badly?"""
        return self.state in ("FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def ask(job: str) -> JobState:
    """The state of `job` (a number, or ARRAY_TASK); "unknown" where there is no Slurm, or it has forgotten."""
    if not job:
        return JobState("")
    return _from_scontrol(job) or _from_sacct(job) or JobState(job)


def _from_scontrol(job: str) -> JobState | None:
    text = _said("scontrol", "--oneliner", "show", "job", job)
    return parse_scontrol(job, text) if text else None


def parse_scontrol(job: str, text: str) -> JobState | None:
    """The state in the first line of ``scontrol --oneliner show job``; None when that names no job."""
    fields = dict(re.findall(r"(\w+)=(\S*)", text.partition("\n")[0]))
    if "JobState" not in fields:
        return None
    waiting = fields["JobState"] == "PENDING"
    reason = fields.get("Reason", "None")
    return JobState(
        job,
        fields["JobState"],
        "" if reason == "None" else reason,
        "" if waiting else fields.get("NodeList", "").replace("(null)", ""),
        int(fields["Restarts"]) if fields.get("Restarts", "").isdigit() else None,
        fields.get("TimeLimit", ""),
        None if waiting else _moment(fields.get("EndTime", "")),
        _moment(fields.get("StartTime", "")) if waiting else None,
        fields.get("StdOut", ""),
    )


def _from_sacct(job: str) -> JobState | None:
    text = _said("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,NodeList,Timelimit")
    return parse_sacct(job, text) if text else None


def parse_sacct(job: str, text: str) -> JobState | None:
    """The state in sacct's last line, ``STATE [by UID]|NODES|LIMIT``."""
    parts = text.strip().splitlines()[-1].split("|")
    if len(parts) != 3 or not parts[0]:
        return None
    return JobState(job, parts[0].split()[0].rstrip("+"), "", parts[1], None, parts[2])


def _said(*command: str) -> str:
    """What a Slurm command prints; nothing when it is not there, fails, or does not answer."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def _moment(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
