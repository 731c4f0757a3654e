"""How a run is doing."""

from __future__ import annotations

import argparse

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's output_dir, or its config")
    parser.add_argument(
        "--requeue",
        type=int,
        metavar="CODE",
        help="for job scripts: should this job, whose `-- COMMAND` ended with CODE, be requeued? exit code 75: yes",
    )


def run(args: argparse.Namespace) -> int:
    """Show the run."""
    if args.requeue is not None:
        from hpcreco.slurm import requeue

        return requeue.run(args.requeue, args.passed)
    raise NotImplementedError
