"""What a site's file says of its nodes: ranks, cores and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpcreco.slurm.scripts import minutes, options_in, script_of, signal_lead, site_file, value_of

_SAYS = r"^(?:site_\w+=\S+ )*{name}=(\d+(?:\.\d+)?)\b"


@dataclass(frozen=True)
class Site:
    """ranks, cores: per node, cores None where the site does not say; memory, gpu_memory: bytes of a node and a GPU.

    lead: seconds before the time limit at which a job is warned; limit: minutes of the script, if nothing is asked.
    """

    name: str
    ranks: int
    cores: int | None
    memory: float | None
    gpu_memory: float | None
    lead: int
    limit: float | None


def read(name: str, jobs: Path) -> Site:
    """The site `name` of the folder `jobs`. Raises SubmitError naming those there are."""
    path = site_file(name, jobs)
    words = options_in(script_of("train", jobs)) + options_in(path)
    ranks = int(value_of("--ntasks-per-node", words) or 1)
    limit = value_of("--time", words, "-t")
    return Site(
        name,
        ranks,
        _whole(_number(path, "site_cores")),
        _bytes(_number(path, "site_memory_gb")),
        _bytes(_number(path, "site_gpu_memory_gb")),
        signal_lead(words),
        minutes(limit) if limit else None,
    )


def _number(path: Path, name: str) -> float | None:
    found = re.findall(_SAYS.format(name=name), path.read_text(), re.MULTILINE)
    return float(found[-1]) if found else None


def _bytes(gigabytes: float | None) -> float | None:
    return None if gigabytes is None else gigabytes * 1e9


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
