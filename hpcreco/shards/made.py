"""Events without files: made when they are asked for, counted and named like those of shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hpcreco.shards.indexes import Index


class Made:
    """What a reader of events gets in the place of a shard: a name and the numbers of its events."""

    def __init__(self, index: Index, number: int) -> None:
        self.path, self.digest = index.paths[number], index.digests[number]
        self.event_ids = index.event_ids[index.first[number] : index.first[number + 1]]

    def close(self) -> None:
        """There is nothing to close."""


def made(counts: Mapping[str, int], recipe: str, tables: Sequence[str]) -> Index:
    """The index of made events: `counts` of them under each name, event ids from 0 within a name.

    recipe: everything that their content depends on, in words; it takes the place of the content's digest. Every event
    counts one row in each of `tables`.
    """
    from hpcreco.shards.indexes import Index

    numbers = np.array(list(counts.values()), np.int64)
    return Index(
        paths=tuple(counts),
        sizes=np.zeros(len(counts), np.int64),
        digests=tuple(hashlib.sha256(f"{name} {recipe}".encode()).hexdigest() for name in counts),
        event_ids=np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in numbers)]),
        first=np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64),
        rows={table: np.ones(int(numbers.sum()), np.int64) for table in tables},
        on_disk=False,
    )
