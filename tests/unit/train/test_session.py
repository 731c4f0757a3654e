"""The index of a run's data: looked into by all ranks, the same on each, and its errors are everybody's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.shards import Field, Schema, Table
from hpcreco.train import session

SCHEMA = Schema("hpcreco/toy/points", 1, (Table("points", (Field("x", "f4"),)),))


class Threads:
    """Ranks that are threads of this process."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, box: list) -> None:
        self.rank, self.size, self._barrier, self._box = rank, size, barrier, box

    def exchange(self, value):
        self._box[self.rank] = value
        self._barrier.wait(300)
        everyone = list(self._box)
        self._barrier.wait(300)
        return everyone

    def gather_object(self, value, root=0):
        everyone = self.exchange(value)
        return everyone if self.rank == root else None

    def broadcast_object(self, value, root=0):
        return self.exchange(value)[root]


def on_ranks(size, work):
    """What `work` returns or raises on each of `size` ranks."""
    barrier, box = threading.Barrier(size), [None] * size

    def one(rank):
        try:
            return work(Threads(rank, size, barrier, box))
        except shards.ShardError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def few_shards(folder):
    """Five shards of no, one and two events."""
    paths = [folder / f"{number}.h5" for number in range(5)]
    for number, path in enumerate(paths):
        with shards.ShardWriter(path, SCHEMA, {}) as writer:
            for event in range(number % 3):
                rows = np.full(number + event, event, np.float32)
                writer.append(event + 10 * number, {"points": {"x": rows}})
    return paths


@pytest.fixture
def paths(tmp_path):
    return few_shards(tmp_path)


def part_of(parallel, paths):
    found = SimpleNamespace(
        load=lambda what: {"files": lambda run, name: paths, "cost": lambda run, index: index.rows["points"]}[
            what
        ]
    )
    task = SimpleNamespace(read=lambda run, training: None)
    return session.open_part(
        found, task, SimpleNamespace(seed=0, loading=SimpleNamespace(stage=None)), parallel, "train"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_rank_has_the_index_that_one_would_make(size, paths):
    expected = shards.index(paths)
    for part in on_ranks(size, lambda parallel: part_of(parallel, paths)):
        assert part.index.paths == expected.paths
        assert part.index.digest == expected.digest
        np.testing.assert_array_equal(part.index.event_ids, expected.event_ids)
        np.testing.assert_array_equal(part.index.first, expected.first)
        np.testing.assert_array_equal(part.costs, expected.rows["points"])


def test_a_file_that_one_rank_cannot_use_is_an_error_on_all(paths):
    paths[3].write_bytes(b"no shard")
    errors = on_ranks(2, lambda parallel: part_of(parallel, paths))
    assert all("3.h5" in str(error) for error in errors)


def test_files_are_opened_once_in_all(paths, monkeypatch):
    opened = []
    entry = shards.entry
    monkeypatch.setattr(shards, "entry", lambda path: opened.append(path) or entry(path))
    on_ranks(3, lambda parallel: part_of(parallel, paths))
    assert sorted(opened) == paths


def test_no_data_is_no_part():
    assert on_ranks(2, lambda parallel: part_of(parallel, None)) == [None, None]
