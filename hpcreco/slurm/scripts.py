"""The job scripts and site files that come with hpcreco, and the sbatch options written in them."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from hpcreco.config import nearest

_DIRECTIVE = re.compile(r"^#SBATCH\s+(.*?)\s*$", re.MULTILINE)


class SubmitError(ValueError):
    """A job that cannot run as asked; nothing was queued."""

    exit_code = 2


def shipped_jobs() -> Path:
    """The folder of job scripts: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_jobs"
    return installed if installed.is_dir() else package.parent / "jobs"


def script_of(verb: str, jobs: Path) -> Path:
    """The job script of `verb`; SubmitError names those there are."""
    known = sorted(path.stem for path in jobs.glob("*.sl"))
    return _known("job script for the verb", verb, known, jobs / f"{verb}.sl", f"in {jobs}")


def site_file(site: str, jobs: Path) -> Path:
    """The file of `site`; SubmitError names the nearest one there is."""
    known = sorted(path.stem for path in (jobs / "sites").glob("*.sh"))
    return _known("site", site, known, jobs / "sites" / f"{site}.sh", f"in {jobs / 'sites'}")


def _known(what: str, name: str, known: list[str], path: Path, where: str) -> Path:
    if name in known:
        return path
    close = nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    raise SubmitError(f"there is no {what} {name!r} {where}; there are: {', '.join(known) or 'none'}{hint}")


def runtime_of(image: str, site: Path) -> str:
    """What runs `image` at a site, as ``launch.sh`` decides it from the image's form; empty without an image."""
    if not image:
        return ""
    named = os.environ.get("HPCRECO_RUNTIME")
    said = re.findall(r"^site_runtime=([\w-]+)", site.read_text(), re.MULTILINE)
    return named or ("apptainer" if is_file(image) or not said else said[-1])


def is_file(image: str) -> bool:
    """Whether an image is named by its path, not by what a registry or a runtime calls it."""
    return image.startswith(("/", "./", "../", "~")) or image.endswith((".sif", ".sqfs", ".img"))


def options_in(path: Path) -> list[str]:
    """The words of a script's ``#SBATCH`` lines, in order."""
    return [
        word for line in _DIRECTIVE.findall(path.read_text()) for word in shlex.split(line, comments=True)
    ]


def value_of(name: str, words: list[str], short: str = "") -> str | None:
    """The last value of option `name` among `words`: ``--name=value``, ``--name value``, or short ``-n value``."""
    found = None
    for number, word in enumerate(words):
        if word.startswith(f"{name}="):
            found = word.partition("=")[2]
        elif word in (name, short) and number + 1 < len(words):
            found = words[number + 1]
        elif short and word.startswith(short) and not word.startswith("--"):
            found = word[len(short) :]
    return found


def minutes(text: str) -> float:
    """A time limit as Slurm writes it, in minutes: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises SubmitError for anything else. Source: https://slurm.schedmd.com/sbatch.html (--time).
    """
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise SubmitError(f"time {text!r}: write minutes, or a time as Slurm does: 90, 1:30:00, 1-12")
    numbers = [int(part) for part in parts]
    if dash:
        hours, mins, seconds = [*numbers, 0, 0][:3]
        return int(days) * 1440 + hours * 60 + mins + seconds / 60
    if len(numbers) == 3:
        return numbers[0] * 60 + numbers[1] + numbers[2] / 60
    return numbers[0] + ([*numbers, 0][1]) / 60


def signal_lead(words: list[str]) -> int:
    """Seconds before the time limit at which ``--signal=USR2@seconds`` warns the ranks; 0 without one."""
    _, at, seconds = (value_of("--signal", words) or "").partition("@")
    return int(seconds) if at and seconds.isdigit() else 0
