"""How a run is doing: its job, attempts, last epoch, rate, expected end and last error.

RUN is a run's output_dir or its config. Works where there is no Slurm; what only Slurm knows is then left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

from hpcreco.slurm.progress import Progress, StatusError, find_run, look

PASSES_ON = True
EPILOG = """\
examples:
  hpcreco status runs/ghost3d_tiny
  hpcreco status ghost3d_tiny --json
  watch -n 60 hpcreco status runs/ghost3d
"""
_COLOURS = {
    "training": "green",
    "done": "bold green",
    "failed": "bold red",
    "lost": "bold red",
    "stopped": "yellow",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's output_dir, or its config")
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.add_argument(
        "--requeue",
        type=int,
        metavar="CODE",
        help="for job scripts: should this job, whose `-- COMMAND` ended with CODE, be requeued? exit code 75: yes",
    )


def run(args: argparse.Namespace) -> int:
    """Show the run, or answer a job script."""
    if args.requeue is not None:
        from hpcreco.slurm import requeue

        return requeue.run(args.requeue, args.passed)
    if args.run is None:
        raise StatusError("hpcreco status RUN: name the folder of a run, or its config")
    found = look(find_run(args.run))
    if args.json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        show(dict(lines(found)), found.state)
    return 0


def lines(found: Progress) -> Iterator[tuple[str, str]]:
    """What is to be said of a `progress.Progress`, by heading; what is not known is left out."""
    yield "run", found.run
    yield "state", found.state
    if found.job.job:
        yield "job", _job(found)
    if found.attempts:
        yield "attempts", f"{len(found.attempts)}, {_ended(found)}"
    if found.epoch is not None:
        of = f" of {found.epochs}" if found.epochs is not None else ""
        yield "epochs", f"{found.epoch + 1}{of}"
    if found.step:
        yield "steps", f"{found.step}" + (f" of {found.iterations}" if found.iterations is not None else "")
    if found.metrics:
        yield "last epoch", "  ".join(f"{name} {value:.4g}" for name, value in found.metrics.items())
    if found.pace:
        yield (
            "rate",
            f"{found.pace.events_per_second:.3g} events/s, {found.pace.epoch_seconds:.3g} s an epoch",
        )
    if found.expected_end is not None:
        yield "expected end", _clock(found.expected_end) + _beyond(found)
    elif found.seconds_left:
        yield "left", f"{_duration(found.seconds_left)} of training"
    if found.error:
        yield "last error", found.error
    if found.log:
        yield "log", found.log


def show(told: dict[str, str], state: str) -> None:
    """A table with colours on a terminal; plain lines elsewhere."""
    width = max(map(len, told))
    if not sys.stdout.isatty():
        for heading, text in told.items():
            print(f"{heading:{width}s}  {text}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for heading, text in told.items():
        style = _COLOURS.get(state, "") if heading == "state" else "red" if heading == "last error" else ""
        table.add_row(Text(heading, "bold"), Text(text, style))
    Console(highlight=False).print(table)


def _job(found: Progress) -> str:
    job = found.job
    if job.state == "unknown":
        return f"{job.job}, of which Slurm knows nothing (any more)"
    parts = [f"{job.job} {job.state}"]
    parts += [f"({job.reason})"] if job.reason else []
    parts += [f"on {job.nodes}"] if job.nodes else []
    parts += [f"restarted {job.restarts} times"] if job.restarts else []
    parts += [f"until {_clock(job.ends)}"] if job.ends and job.state == "RUNNING" else []
    parts += [f"expected to begin {_clock(job.starts)}"] if job.starts else []
    return " ".join(parts)


def _ended(found: Progress) -> str:
    last = found.attempts[-1]
    if last.outcome == "killed":
        running = found.state == "training"
        said = "the last is running" if running else "the last was killed"
        return f"{said}, begun {_clock(last.started)} at step {last.from_step} on {last.ranks} ranks"
    return f"the last {last.outcome} at step {last.step}" + (f": {last.reason}" if last.reason else "")


def _beyond(found: Progress) -> str:
    ends = found.job.ends
    if ends is None or found.expected_end is None or found.expected_end <= ends:
        return ""
    return f", beyond this job's time ({_clock(ends)}): it will be requeued"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _duration(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"
