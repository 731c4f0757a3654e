"""Whether a job that has just ended tries again: what job scripts ask through ``hpcreco status --requeue CODE``."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcreco import attempts
from hpcreco.config_arguments import load_run

#: exit codes of the question itself: requeue, leave it as it is, and there is nothing left to do
YES, NO, DONE = 75, 76, 0


def question(code: int, command: Sequence[str], environ: Mapping[str, str] = os.environ) -> attempts.Decision:
    """The answer for this job, of which srun returned `code` and whose ranks ran ``hpcreco COMMAND``."""
    job, restart = attempts.job_of(environ)
    by_file = Path(environ.get(attempts.VARIABLE, ""))
    if by_file.is_file():
        return attempts.decide(code, _of(job, attempts.read(by_file)), restart, by_file=True)
    if command[:1] != ["train"]:
        return attempts.decide(code, [], restart, by_file=True)
    run = output_dir(command[1:])
    rows = _of(job, attempts.read(run / "attempts.csv"))
    gained = None if not rows else attempts.newest_checkpoint(run) != rows[-1].resumed
    return attempts.decide(code, rows, restart, gained=gained)


def _of(job: str, rows: list[attempts.Attempt]) -> list[attempts.Attempt]:
    return [row for row in rows if row.job == job]


def parse(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of ``hpcreco train`` or ``hpcreco infer`` as these read them."""
    command = importlib.import_module({"train": "hpcreco.train.command", "infer": "hpcreco.infer"}[verb])
    parser = argparse.ArgumentParser(prog=f"hpcreco {verb}")
    command.add_arguments(parser)
    return parser.parse_args(list(arguments))


def output_dir(arguments: Sequence[str]) -> Path:
    """Where ``hpcreco train ARGUMENTS`` writes."""
    settings, _ = load_run(parse("train", arguments))
    return settings.output_dir


def run(code: int, command: Sequence[str]) -> int:
    """Print the answer's reason; returns 75 to requeue, 76 not to, 0 when the work is done."""
    answer = question(code, command)
    print(f"hpcreco: {answer.reason}", flush=True)
    return YES if answer.requeue else DONE if answer.done else NO
