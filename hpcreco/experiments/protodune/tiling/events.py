"""The events of a waveform file, tiled one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from hpcreco.experiments.protodune.parsed import Parsed, Waveforms
from hpcreco.experiments.protodune.tiling.tiler import Tiler, Tiles, TilingError

Item = TypeVar("Item")
Result = TypeVar("Result")


def tiled(tiler: Tiler, x: Parsed, events: Sequence[int], exact: bool = False) -> Iterator[Tiles]:
    """The tiles of events of a waveform file, in order; with more than one thread the next events are made ahead.

    Raises TilingError naming file and event.
    """

    def tile(read: tuple[int, Waveforms]) -> Tiles:
        try:
            return tiler.tile(*read[1], exact=exact)
        except TilingError as error:
            raise TilingError(f"{x.path}: event {read[0]}: {error}") from error

    if tiler.threads == 1:
        return (tile((event, x.waveform(event))) for event in events)
    # Two at a time: while one event is sorted or put together, which one thread does, the threads of another compute.
    return _ahead(tile, _ahead(lambda event: (event, x.waveform(event)), events, 1), 2)


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """`function` of every item, in order, `count` of them computed in threads while the one before is in use."""
    with ThreadPoolExecutor(count) as pool:
        jobs: deque[Future[Result]] = deque()
        for item in items:
            jobs.append(pool.submit(function, item))
            if len(jobs) > count:
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()
