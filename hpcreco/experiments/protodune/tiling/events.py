"""The events of a waveform file, tiled one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from hpcreco.experiments.protodune.parsed import Parsed
from hpcreco.experiments.protodune.tiling.tiler import Tiler, Tiles, TilingError


def tiled(tiler: Tiler, x: Parsed, events: Sequence[int], exact: bool = False) -> Iterator[Tiles]:
    """The tiles of events of a waveform file, in order; with more than one thread the next events are made ahead.

    Raises TilingError naming file and event.
    """
    # Events are read and put together by the caller's thread: what other threads allocate goes back to the system
    # after every event, and 2000 page faults fetch it for the next one.
    ahead = 0 if tiler.threads == 1 else 2
    started: deque[Callable[[], Tiles]] = deque()
    for event in events:
        samples = x.waveform(event)
        try:
            started.append(tiler.start(*samples, exact=exact))
        except TilingError as error:
            raise TilingError(f"{x.path}: event {event}: {error}") from error
        if len(started) > ahead:
            yield started.popleft()()
    while started:
        yield started.popleft()()
