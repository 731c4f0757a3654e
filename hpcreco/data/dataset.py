"""Events by reference: what to read, and the randomness that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hpcreco import shards
from hpcreco.data.batch import Batch, Event, Ref, collate
from hpcreco.data.randomness import READ, stream

#: (`shards.Shard`, or `shards.Made` where events are made; number of the event in it; generator of this event and draw)
#: -> Event
ReadEvent = Callable[[Any, int, np.random.Generator], Event]


class DataError(RuntimeError):
    """An event could not be read; names its file and number."""

    exit_code = 1


class EventDataset:
    """The events of an index, read one at a time.

    An item is (ref, draw): what is random in reading it (augmentation, thinning) depends on the seed, the
    event's global number and the draw alone, never on the rank, the thread or the order of reading.
    """

    def __init__(self, index: shards.Index, read: ReadEvent, seed: int) -> None:
        self.index, self.read, self.seed = index, read, seed
        self.first = np.asarray(index.first, np.int64)
        self._pool = shards.Pool(index)
        self._template: Event | None = None

    def __len__(self) -> int:
        return int(self.first[-1])

    def event(self, ref: Ref, draw: int = 0) -> Event:
        """Realisation `draw` of event `ref`. Raises DataError naming the file, whatever went wrong."""
        number = int(self.first[ref.shard]) + ref.event
        try:
            with self._pool.using(ref.shard) as shard:
                return self.read(shard, ref.event, stream(self.seed, READ, number, draw))
        except Exception as error:
            reason = str(error) if hasattr(error, "exit_code") else f"{type(error).__name__}: {error}"
            raise DataError(f"{self._where([ref])}: {reason}") from error

    def batch(self, refs: Sequence[Ref], costs: Sequence[float], draw: int = 0) -> Batch:
        """The events `refs` as one batch; without any, an empty batch with the tables of the first event."""
        events = [self.event(ref, draw) for ref in refs]
        try:
            return collate(events, refs, costs, like=None if events else self.template())
        except ValueError as error:
            raise DataError(f"{self._where(refs)}: {error}") from error

    def template(self) -> Event:
        """The first event, read once: what empty batches take their dtypes and widths from."""
        if self._template is None:
            shard = int(np.flatnonzero(np.diff(self.first))[0])
            self._template = self.event(Ref(shard, 0))
        return self._template

    def close(self) -> None:
        """Close the files."""
        self._pool.close()

    def _where(self, refs: Sequence[Ref]) -> str:
        files: dict[int, list[int]] = {}
        for ref in refs:
            files.setdefault(ref.shard, []).append(ref.event)
        return ", ".join(
            f"{self.index.paths[shard]}, event{'s' if len(events) > 1 else ''} {', '.join(map(str, events))}"
            for shard, events in files.items()
        )
