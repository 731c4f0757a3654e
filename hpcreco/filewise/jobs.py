"""What is to be done: one job per output file or group of files, and the flags every file-wise verb has."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcreco.filewise.splitting import SCHEDULES


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


def add_filewise_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every file-wise verb has."""
    group = parser.add_argument_group(
        "files",
        "files that are finished are skipped, stale or broken ones are made again; start under `mpiexec -n P`, "
        "`srun -n P` or as a Slurm array to share them out",
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="contiguous",
        help="who does which file: blocks in order, largest first to the least loaded worker, or on demand "
        "(rank 0 serves; for files of very different cost) (default: %(default)s)",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print who would do what and why, and do nothing"
    )
    group.add_argument("--force", action="store_true", help="make everything again, finished or not")
    group.add_argument("--run-report", type=Path, metavar="FILE", help="where the JSON run report goes")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of those flags, as keyword arguments of `run`."""
    return {
        "schedule": args.schedule,
        "dry_run": args.dry_run,
        "force": args.force,
        "run_report": args.run_report,
    }


def check_distinct(jobs: Sequence[Job]) -> None:
    """Raises FilewiseError for two jobs with the same key or output."""
    for what, names in (
        ("the key", [job.key for job in jobs]),
        ("the output", [str(output) for job in jobs for output in job.outputs]),
    ):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise FilewiseError(f"two jobs have {what} {repeated[0]}; rename one of their inputs")
