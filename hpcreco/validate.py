"""`hpcreco validate FILE...`: check files and say what is wrong with each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcreco import experiment, filewise, shards


class ValidateError(RuntimeError):
    """A file has problems, or there is none to look at."""

    exit_code = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.description = (
        "Read whole files and list everything that is wrong with them: truncated or incomplete, of another format or "
        "version, missing tables, offsets that do not fit the events, NaN, content that no longer has its digest."
    )
    parser.epilog = (
        "examples:\n"
        "  hpcreco validate xy/*.h5\n"
        "  mpiexec -n 4 hpcreco validate xy        every .h5 file below the folder, shared over 4 processes\n"
        "exit code: 0 all files are fine, 1 some are not"
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a shard or artefact, or a folder of them"
    )
    parser.add_argument(
        "--schedule", choices=filewise.SCHEDULES, default="size", help="how files are shared out"
    )
    parser.add_argument("--run-report", type=Path, metavar="FILE", help="write a JSON report there")


def run(args: argparse.Namespace) -> int:
    """Check the files; the exit code is 1 when any has a problem."""
    paths = _files(args.files)
    jobs = [
        filewise.Job(str(path), (path,), (), size=path.stat().st_size if path.is_file() else 0)
        for path in paths
    ]
    return filewise.run(
        jobs,
        lambda job: _check(job.inputs[0]),
        finished=lambda job: "to check",
        title="validate",
        schedule=args.schedule,
        run_report=args.run_report,
    )


def _files(given: list[Path]) -> list[Path]:
    paths: dict[Path, None] = {}  # a set that keeps the order
    for path in given:
        found = sorted(path.rglob("*.h5")) if path.is_dir() else [path]
        if not found:
            raise ValidateError(f"{path}: no .h5 file in this folder")
        paths.update(dict.fromkeys(found))
    return list(paths)


def _check(path: Path) -> dict[str, Any]:
    """Raises ValidateError with all problems of the file, one a line."""
    schema = further = None
    problems: list[str] = []
    try:
        identity = shards.identify(path)
        if identity is not None:
            found, product = experiment.of_format(identity[0])
            schema, further = found.schema(product), found.checks.get(product)
    except (shards.ShardError, experiment.ExperimentError) as error:
        problems = [str(error)]
    problems = problems or shards.validate(path, schema)
    if further and not problems:
        problems = experiment.load(further)(path)
    for problem in problems:
        print(problem, flush=True)
    if problems:
        raise ValidateError(f"{len(problems)} problem(s): " + "; ".join(problems))
    return {"format": identity[0] if identity else "", "version": identity[1] if identity else 0}
