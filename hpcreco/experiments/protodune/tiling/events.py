"""The events of a waveform file, tiled one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from hpcreco.experiments.protodune.parsed import Parsed
from hpcreco.experiments.protodune.tiling.tiler import Tiler, Tiles, TilingError


def tiled(tiler: Tiler, x: Parsed, events: Sequence[int], exact: bool = False) -> Iterator[Tiles]:
    """The tiles of events of a waveform file, in order; with more than one thread the next events are made ahead.

    Raises TilingError naming file and event.
    """

    def tile(event: int) -> Tiles:
        samples = x.waveform(event)
        try:
            return tiler.tile(*samples, exact=exact)
        except TilingError as error:
            raise TilingError(f"{x.path}: event {event}: {error}") from error

    if tiler.threads == 1:
        return map(tile, events)
    # While one thread reads an event, sorts it or puts it together, the threads of the one before compute.
    return _ahead(tile, events, 2)


def _ahead(tile: Callable[[int], Tiles], events: Sequence[int], count: int) -> Iterator[Tiles]:
    """`tile` of every event, in order, `count` of them at work in threads while the one before is in use."""
    with ThreadPoolExecutor(count) as pool:
        jobs: deque[Future[Tiles]] = deque()
        for event in events:
            jobs.append(pool.submit(tile, event))
            if len(jobs) > count:
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()
