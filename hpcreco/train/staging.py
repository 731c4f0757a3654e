"""Shards copied to every node's own storage before training, each once per node, its ranks sharing the work."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hpcreco import collective, shards
from hpcreco.parallel import Parallel
from hpcreco.shards import staging

LOG = logging.getLogger("hpcreco")

T = TypeVar("T")

ROUND_SECONDS = 20.0
"""After about so long ranks tell each other how far they are: who waits for a slower one sees that it is at work."""


def staged(
    index: shards.Index, folder: Path, parallel: Parallel, beat: Callable[[], None] = lambda: None
) -> shards.Index:
    """The same index, read from unpacked copies in `folder` on each node; what is there already is taken.

    beat: called whenever all ranks have made progress. Collective. Raises ShardError on every rank when a node's
    storage has too little room or a copy fails.
    """
    if not index.on_disk or index.n_shards == 0:
        return index
    began = time.monotonic()
    targets = [
        staging.staged_path(folder, path, digest)
        for path, digest in zip(index.paths, index.digests, strict=True)
    ]
    host = socket.gethostname()
    hosts = parallel.broadcast_object(parallel.gather_object(host))
    here = [rank for rank, other in enumerate(hosts) if other == host]
    mine = range(here.index(parallel.rank), index.n_shards, len(here))

    def survey() -> tuple[str, int, int]:
        folder.mkdir(parents=True, exist_ok=True)
        shards.remove_dead([targets[number] for number in mine])
        missing = [number for number in mine if not targets[number].is_file()]
        needed = sum(staging.unpacked_size(Path(index.paths[number])) for number in missing)
        return host, needed, shutil.disk_usage(folder).free

    surveyed = on_all(parallel, survey)
    collective.on_root(parallel.rank, parallel.broadcast_object, lambda: _check_room(folder, surveyed or []))

    missing = [number for number in mine if not targets[number].is_file()]

    def copy() -> tuple[int, int]:
        end, copied = time.monotonic() + ROUND_SECONDS, 0
        while missing and (copied == 0 or time.monotonic() < end):
            number = missing.pop(0)
            staging.unpack(Path(index.paths[number]), targets[number])
            copied += 1
        return copied, len(missing)

    copied, left = 0, 1
    while left:
        counts = on_all(parallel, copy) or []  # rank 0 has them
        copied += sum(done for done, _ in counts)
        left = parallel.broadcast_object(sum(more for _, more in counts))
        beat()
        if left and parallel.rank == 0:
            LOG.info("staging in %s: %d shards copied, %d to go", folder, copied, left)
    if parallel.rank == 0:
        LOG.info(
            "staged %d shards in %s on %d node(s): %d copied, %.0f s",
            index.n_shards, folder, len(set(hosts)), copied, time.monotonic() - began,
        )  # fmt: skip
    return replace(index, staged=tuple(map(str, targets)))


def _check_room(folder: Path, surveyed: list[tuple[str, int, int]]) -> None:
    """Raise ShardError for the first node whose ranks together need more than there is."""
    for host in dict.fromkeys(host for host, _, _ in surveyed):
        needed = sum(need for other, need, _ in surveyed if other == host)
        free = min(free for other, _, free in surveyed if other == host)
        if needed > free:
            raise shards.ShardError(
                f"{folder} on {host} has {free / 1e9:.1f} GB free, the unpacked shards need {needed / 1e9:.1f} GB; "
                "stage to a larger disk, or leave `stage` out and read them where they are"
            )


def on_all(parallel: Parallel, work: Callable[[], T]) -> list[T] | None:
    """Let every rank do `work` and give rank 0 all results; an error of one is raised on every rank."""
    result: list[T] = []
    error: Exception | None = None
    try:
        result.append(work())
    except Exception as caught:  # noqa: BLE001  (raised again on every rank)
        error = caught
    everyone = parallel.gather_object((result, error))

    def check() -> None:
        for _, failed in everyone or ():
            if failed is not None:
                raise failed

    collective.on_root(parallel.rank, parallel.broadcast_object, check)
    return None if everyone is None else [done[0] for done, _ in everyone]
