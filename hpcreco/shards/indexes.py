"""Many shards as one: which events there are and how large, from metadata alone; and a pool of open files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcreco.shards.made import Made
from hpcreco.shards.reader import Shard
from hpcreco.shards.schema import Schema, ShardError


@dataclass(frozen=True)
class Index:
    """What is known of many shards without reading their events. Built on one rank, broadcast to the
    others.
    """

    paths: tuple[str, ...]
    sizes: np.ndarray  # int64 (n_shards): bytes
    digests: tuple[str, ...]
    event_ids: np.ndarray  # int64 (n_events), shard after shard
    first: np.ndarray  # int64 (n_shards + 1): global number of each shard's first event
    rows: dict[str, np.ndarray]  # table -> int64 (n_events)
    on_disk: bool = True  # False: `paths` are names, events are made (see `shards.made`)
    staged: tuple[str, ...] = ()  # unpacked copies to read instead (see `shards.staging`)

    @property
    def n_shards(self) -> int:
        return len(self.paths)

    @property
    def n_events(self) -> int:
        return int(self.first[-1])

    @property
    def digest(self) -> str:
        """sha256 over the shards' content digests, in order."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()

    def locate(self, event: int) -> tuple[int, int]:
        """(shard, event in the shard) of a global event number."""
        if not 0 <= event < self.n_events:
            raise ShardError(
                f"event {event} asked for, the {self.n_shards} shards have 0..{self.n_events - 1}"
            )
        shard = int(np.searchsorted(self.first, event, side="right")) - 1
        return shard, int(event - self.first[shard])


class Entry(NamedTuple):
    """What an index holds of one shard; `rows` as in `Index`, of this shard's events."""

    path: str
    format: str
    version: int
    size: int
    digest: str
    event_ids: np.ndarray
    rows: dict[str, np.ndarray]


def entry(path: str | os.PathLike[str], schema: Schema | None = None) -> Entry:
    """Look into one shard. Raises ShardError when it cannot be used."""
    path = Path(path)
    with Shard(path, schema) as shard:
        rows = {table: shard.rows(table) for table in shard.tables}
        return Entry(
            str(path),
            shard.format,
            shard.version,
            path.stat().st_size,
            shard.digest,
            shard.event_ids,
            rows,
        )


def index(paths: Iterable[str | os.PathLike[str]], schema: Schema | None = None) -> Index:
    """The index of shards of one format, in the order given.

    A table that a shard lacks (it is optional) counts no rows there. Raises ShardError for a shard that
    cannot be used, or whose format differs from the others'.
    """
    return join(entry(path, schema) for path in paths)


def join(entries: Iterable[Entry]) -> Index:
    """The index of shards that were looked into, by one process or by several; as `index`."""
    entries = list(entries)
    for one in entries:
        first = entries[0]
        if (one.format, one.version) != (first.format, first.version):
            raise ShardError(
                f"{one.path} is {one.format} version {one.version}, "
                f"{first.path} is {first.format} version {first.version}"
            )
    counts = [len(one.event_ids) for one in entries]
    tables = sorted({table for one in entries for table in one.rows})
    return Index(
        paths=tuple(one.path for one in entries),
        sizes=np.array([one.size for one in entries], np.int64),
        digests=tuple(one.digest for one in entries),
        event_ids=_joined([one.event_ids for one in entries]),
        first=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        rows={
            t: _joined(
                [one.rows.get(t, np.zeros(n, np.int64)) for one, n in zip(entries, counts, strict=True)]
            )
            for t in tables
        },
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


class Pool:
    """At most `limit` open shards of an index in this process, the least recently used closed first.

    Thread-safe, and safe to send to another process: handles are opened where they are used, never inherited.
    """

    def __init__(self, index: Index, schema: Schema | None = None, limit: int = 64) -> None:
        self.index = index
        self.schema = schema
        self.limit = max(1, limit)
        self._reset()

    def _reset(self) -> None:
        self._open: OrderedDict[int, Shard | Made] = OrderedDict()
        self._users: Counter[int] = Counter()
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "schema": self.schema, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def shard(self, number: int) -> Any:
        """The open `Shard`, or what stands for it (`Made`).

        It may be closed as soon as other shards are asked for, so read through the pool or inside `using`.
        """
        if self._process != os.getpid():  # forked: the parent's handles are not ours to use or to close
            self._reset()
        with self._lock:
            if number not in self._open:
                opened = self._opened(number)
                if opened.digest != self.index.digests[number]:
                    opened.close()
                    raise ShardError(f"{opened.path}: replaced since the index was built; start again")
                self._open[number] = opened
            self._open.move_to_end(number)
            unused = [n for n in self._open if n != number and not self._users[n]]
            for oldest in unused[: max(0, len(self._open) - self.limit)]:
                self._open.pop(oldest).close()
            return self._open[number]

    def _opened(self, number: int) -> Shard | Made:
        if self.index.on_disk:
            staged = self.index.staged[number] if self.index.staged else None
            return Shard(self.index.paths[number], self.schema, staged)
        return Made(self.index, number)

    @contextlib.contextmanager
    def using(self, number: int) -> Iterator[Any]:
        """The open shard, not closed before the `with` block is left, whatever other threads ask for."""
        with self._lock:
            shard = self.shard(number)
            self._users[number] += 1
        try:
            yield shard
        finally:
            with self._lock:
                self._users[number] -= 1

    def read(
        self, number: int, event: int, table: str, fields: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Like Shard.read, of shard `number`."""
        with self.using(number) as shard:
            columns: dict[str, np.ndarray] = shard.read(event, table, fields)
            return columns

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
