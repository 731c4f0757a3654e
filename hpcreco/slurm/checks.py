"""What is wrong with a job before it is queued: hours in a queue should not end in a message about a name."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from hpcreco import config, experiment
from hpcreco.config import Run
from hpcreco.slurm.command import Job
from hpcreco.slurm.pace import pace_of
from hpcreco.slurm.scripts import SubmitError, is_file, minutes, runtime_of, signal_lead, site_file, value_of

#: verbs whose first argument is a config
WITH_CONFIG = ("train", "infer")
#: a whole array specification of sbatch: numbers and ranges, a step, a limit
_ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(%\d+)?")


def check(job: Job, *, queueing: bool = True) -> Run | None:
    """Raise SubmitError or ConfigError for a job that cannot run; returns its config, if the verb has one.

    `queueing`: also ask for what is needed to queue it from this machine.
    """
    _ = job.script
    site_file(job.site, job.jobs)
    if job.array is not None and not _ARRAY.fullmatch(job.array):
        raise SubmitError(
            f"--array {job.array}: write a range such as 0-7 (files are shared out over its tasks)"
        )
    if job.verb in ("train", "report") and job.array is not None:
        raise SubmitError(f"--array: {job.verb} is one job; give it nodes with -N")
    for after in job.after:
        if not re.fullmatch(r"\d+(_\d+)?", after):
            raise SubmitError(f"--after {after}: write a job's number")
    check_image(job, queueing)
    run = check_config(job) if job.verb in WITH_CONFIG else None
    check_time(job, run)
    if queueing and shutil.which("sbatch") is None:
        raise SubmitError(
            "there is no sbatch on this machine: submit from the cluster's login node, or run it here with "
            f"`hpcreco {job.verb}` or mpiexec; --dry-run shows the command"
        )
    return run


def check_image(job: Job, queueing: bool) -> None:
    """An image in a file must be there; without an image, the job needs hpcreco on PATH."""
    image = job.image
    runtime = runtime_of(image, site_file(job.site, job.jobs))
    if is_file(image) and not Path(image).expanduser().exists():
        raise SubmitError(
            f"--container {image}: there is no such image; build it (apptainer build {image} apptainer.def), or "
            "name one of a registry, e.g. user/hpcreco:gpu"
        )
    if runtime == "apptainer" and "://" not in image and not Path(image).exists():
        raise SubmitError(
            f"--container {image}: there is no such file, and the site {job.site} runs images by Apptainer; give it a "
            f"file (reco.sif) or an address (docker://{image}), or name what knows it: HPCRECO_RUNTIME=shifter"
        )
    if not image and queueing and shutil.which("hpcreco") is None:
        raise SubmitError(
            "hpcreco is not on PATH, so the job would not find it: activate its environment first, or give "
            "--container IMAGE"
        )


def check_config(job: Job) -> Run:
    """The job's config, read as the verb will read it."""
    from hpcreco.slurm.requeue import parse

    if not job.arguments or job.arguments[0].startswith("-"):
        raise SubmitError(f"hpcreco submit {job.verb} CONFIG ...: name a config (`hpcreco config list`)")
    args = parse(job.verb, job.arguments)
    raw = config.load(args.config, args.set)
    run: Run = experiment.recognise(raw).load("normalise")(raw, args.lenient)
    if job.verb == "train" and not run.trains:
        raise SubmitError(f"{args.config} names no training data; submit it with `hpcreco submit infer`")
    return run


def check_time(job: Job, run: Run | None) -> None:
    """The time limit must leave room for a step in front of the warning signal."""
    words, flag = job.all_options(), "-t"
    limit_text, least = value_of("--time", words, "-t"), value_of("--time-min", words)
    if limit_text is None:
        return
    if least is not None:
        if minutes(least) > minutes(limit_text):
            raise SubmitError(f"--time-min {least} is more than the time limit {limit_text}")
        limit_text, flag = least, "--time-min"  # all that the job is sure of
    limit, lead = 60 * minutes(limit_text), signal_lead(words)
    if limit <= lead:
        raise SubmitError(
            f"{flag} {limit_text}: the job is warned {lead} s before its end, which leaves nothing; ask for more than "
            f"{-(-lead // 60)} minutes, or shorten the warning with --sbatch=--signal=USR2@30"
        )
    pace = pace_of(run.output_dir) if run is not None and job.verb == "train" else None
    if pace is not None and limit - lead < pace.step_seconds:
        raise SubmitError(
            f"{flag} {limit_text}: a step of {run.output_dir} takes {pace.step_seconds:.0f} s and the warning comes "  # type: ignore[union-attr]
            f"{lead} s before the end, so the job could not take one; ask for more than "
            f"{int((pace.step_seconds + lead) // 60) + 1} minutes"
        )


def environment_jobs() -> Path | None:
    """The scripts that $HPCRECO_JOBS names, if it does."""
    named = os.environ.get("HPCRECO_JOBS")
    return Path(named).absolute() if named else None
