"""The flags that every file-wise verb has, and a type of argument that many have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcreco.filewise.splitting import SCHEDULES


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


def positive(text: str) -> int:
    """A whole number from 1 on: how many files, events, ..."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
