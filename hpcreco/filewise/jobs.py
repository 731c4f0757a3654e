"""What is to be done: one job per output file or group of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class FilewiseError(ValueError):
    """The jobs contradict each other."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """One unit of work: `outputs` are made from `inputs` with options that `fingerprint` sums up."""

    key: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    fingerprint: str = ""
    size: int = 0  # bytes to read, for balance


def check_distinct(jobs: Sequence[Job]) -> None:
    """Raises FilewiseError for two jobs with the same key or output."""
    for what, names in (
        ("the key", [job.key for job in jobs]),
        ("the output", [str(output) for job in jobs for output in job.outputs]),
    ):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise FilewiseError(f"two jobs have {what} {repeated[0]}; rename one of their inputs")
