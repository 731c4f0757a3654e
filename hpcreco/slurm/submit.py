"""Send a verb to Slurm as a job, after checking that it can run.

VERB is one that has a job script (simulate, tile, train, infer, reconstruct, report). A train job goes on by itself
after a time limit, a preemption or a lost node, until it is done. What cannot run is refused before it is queued: a
missing image or config, an unknown site, a time limit shorter than a step.

What stands behind -- goes to the verb as it is.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import time
from pathlib import Path

from hpcreco.config import Run
from hpcreco.slurm.checks import check, environment_jobs
from hpcreco.slurm.command import Job, log_of
from hpcreco.slurm.scripts import SubmitError, shipped_jobs

PASSES_ON = True
EPILOG = """\
examples:
  hpcreco submit train ghost3d.yaml -N 5 -t 60 --site perlmutter --container user/hpcreco:gpu --sbatch "-A m1234"
  hpcreco submit simulate --array 0-31 -- protodune --preset full --seed 4 --out parsed --types BeamCosmic
  hpcreco submit tile -N 5 -- -i parsed -o xy -t 1
  hpcreco submit infer ghost_inf.yaml --array 0-7 --after 123
  hpcreco submit train ghost3d.yaml -N 5 -t 360 --time-min 60 --sbatch "-q preempt"
  hpcreco submit train ghost3d_tiny -N 2 -t 10 --dry-run -- --set seed=2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument(
        "verb", metavar="VERB", help="what the job does: simulate, tile, train, infer, reconstruct or report"
    )
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help="the verb's config (reconstruct: its model; report: its run)",
    )
    add = parser.add_argument
    add("-N", "--nodes", type=int, help="how many nodes (default: the script's)")
    add(
        "-t",
        "--time",
        metavar="MINUTES",
        help="time limit, or as Slurm writes it: 1:30:00 (default: the script's)",
    )
    add(
        "--time-min",
        metavar="MINUTES",
        help="be content with less time than -t, but not with less than this: short gaps in a full queue fit as well",
    )
    add("--site", default="local", help="a file of jobs/sites/ (default: %(default)s)")
    add(
        "--container",
        default="",
        metavar="IMAGE",
        help="run in this image: a .sif file, or a name that the site's runtime knows (default: no container)",
    )
    add("--array", metavar="A-B", help="array tasks that share the files out; with -N each has so many nodes")
    add(
        "--after",
        action="append",
        default=[],
        metavar="JOB",
        help="begin when JOB has succeeded; may be repeated",
    )
    add(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTIONS",
        help='more for sbatch: --sbatch "-A m1234 -q debug"',
    )
    add(
        "--jobs",
        type=Path,
        metavar="DIR",
        help="job scripts of your own (default: $HPCRECO_JOBS, or those that come along)",
    )
    add("--dry-run", action="store_true", help="show the sbatch command and the script, and queue nothing")


def run(args: argparse.Namespace) -> int:
    """Check, then show or send."""
    job = job_of(args)
    settings = check(job, queueing=not args.dry_run)
    print(job)
    if args.dry_run:
        print(f"\n# {job.script}\n{job.script.read_text()}", end="")
        return 0
    number = send(job)
    log = log_of(number, job.all_options(), Path.cwd())
    print(f"job {number}\nlog {log}")
    if settings is not None:
        note(settings, number, job.verb, log)
        print(f"hpcreco status {settings.output_dir} shows how it is doing")
    return 0


def job_of(args: argparse.Namespace) -> Job:
    """The job that the flags describe."""
    if args.nodes is not None and args.nodes < 1:
        raise SubmitError(f"-N {args.nodes}: at least one node")
    first = () if args.config is None else (args.config,)
    return Job(
        verb=args.verb,
        arguments=(*first, *args.passed),
        jobs=(args.jobs.absolute() if args.jobs else environment_jobs()) or shipped_jobs(),
        site=args.site,
        image=str(Path(args.container).expanduser()) if args.container.startswith("~") else args.container,
        nodes=args.nodes,
        time=args.time,
        time_min=args.time_min,
        array=args.array,
        after=tuple(args.after),
        more=tuple(word for text in args.sbatch for word in shlex.split(text)),
    )


def send(job: Job) -> str:
    """Queue the job; returns its number. SubmitError holds sbatch's own words when it refuses."""
    ended = subprocess.run(job.words(), capture_output=True, text=True, check=False)
    number = ended.stdout.strip().partition(";")[0]  # --parsable: number[;cluster]
    if ended.returncode != 0 or not number.isdigit():
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise SubmitError(f"sbatch refused the job: {' '.join(said) or f'exit code {ended.returncode}'}")
    return number


def note(settings: Run, number: str, verb: str, log: Path) -> None:
    """Remember the job in the run's ``jobs.csv``, so that `hpcreco status` finds it before it begins."""
    path = settings.output_dir / "jobs.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with open(path, "a") as stream:
        if fresh:
            stream.write("time\tjob\tverb\tlog\n")
        stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')}\t{number}\t{verb}\t{log}\n")
