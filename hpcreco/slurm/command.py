"""The sbatch command of a job, as a value that can be shown, tested and sent."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from hpcreco.slurm.scripts import SubmitError, options_in, script_of, site_file


@dataclass(frozen=True)
class Job:
    """What to send: ``hpcreco VERB ARGUMENTS`` with the script and site of `jobs`."""

    verb: str
    arguments: tuple[str, ...]
    jobs: Path
    site: str = "local"
    image: str = ""
    nodes: int | None = None
    time: str | None = None
    time_min: str | None = None
    array: str | None = None
    after: tuple[str, ...] = ()
    more: tuple[str, ...] = field(default=())  # further sbatch options, which win over all others

    @property
    def script(self) -> Path:
        """The job script."""
        return script_of(self.verb, self.jobs)

    def options(self) -> list[str]:
        """The options in front of the script: the site's, then what was asked for, then the user's own words."""
        words = options_in(site_file(self.site, self.jobs))
        words += [f"--nodes={self.nodes}"] if self.nodes is not None else []
        words += [f"--time={self.time}"] if self.time is not None else []
        # %j would give every array task another number that says nothing of the array
        words += [f"--time-min={self.time_min}"] if self.time_min is not None else []
        words += [f"--array={self.array}", "--output=%x-%A_%a.out"] if self.array is not None else []
        if self.after:
            # a job whose predecessor failed would otherwise wait for ever
            words += [f"--dependency=afterok:{':'.join(self.after)}", "--kill-on-invalid-dep=yes"]
        return [*words, self._export(), *self.more]

    def all_options(self) -> list[str]:
        """The script's own options and those in front of it, in the order of their strength."""
        return options_in(self.script) + self.options()

    def words(self) -> list[str]:
        """The whole command."""
        return ["sbatch", "--parsable", *self.options(), str(self.script), *self.arguments]

    def __str__(self) -> str:
        return shlex.join(self.words())

    def _export(self) -> str:
        forwarded = {"HPCRECO_SITE": self.site, "HPCRECO_IMAGE": self.image, "HPCRECO_JOBS": str(self.jobs)}
        for name, value in forwarded.items():
            if "," in value:
                raise SubmitError(
                    f"{name}={value}: sbatch --export cannot pass a comma on; rename it or make a link"
                )
        return "--export=" + ",".join(["ALL", *(f"{name}={value}" for name, value in forwarded.items())])


def log_of(job_id: str, words: list[str], folder: Path) -> Path:
    """Where sbatch's `words` send the log of job `job_id`; an array's tasks keep their ``%a``."""
    from hpcreco.slurm.scripts import value_of

    pattern = value_of("--output", words, "-o") or ("slurm-%A_%a.out" if "_" in job_id else "slurm-%j.out")
    name = value_of("--job-name", words, "-J") or "sbatch"
    for mark, text in (("%x", name), ("%j", job_id), ("%A", job_id)):
        pattern = pattern.replace(mark, text)
    return folder / pattern
