"""Every node gets each shard once, its ranks sharing the work, or no rank goes on."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.shards import staging as copies
from hpcreco.train import staging
from tests.unit.train.test_session import few_shards, on_ranks


@pytest.fixture
def paths(tmp_path):
    return few_shards(tmp_path)


@pytest.fixture
def unpacked(monkeypatch):
    """Names of the files that were copied."""
    made: Counter = Counter()
    unpack = copies.unpack
    monkeypatch.setattr(
        copies, "unpack", lambda source, target: made.update([source.name]) or unpack(source, target)
    )
    return made


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_ranks_of_a_node_copy_each_shard_once_and_later_runs_none(
    size,
    paths,
    tmp_path,
    unpacked,
    caplog,
):
    caplog.set_level(logging.INFO, logger="hpcreco")
    index = shards.index(paths)
    for _ in range(2):
        for staged in on_ranks(size, lambda parallel: staging.staged(index, tmp_path / "disk", parallel)):
            assert staged.paths == index.paths
            assert staged.digest == index.digest
            with shards.Shard(staged.paths[2], copy=staged.staged[2]) as shard:
                np.testing.assert_array_equal(shard.read(1, "points")["x"], np.full(3, 1, np.float32))
    assert unpacked == {path.name: 1 for path in paths}
    assert "staged 5 shards" in caplog.text
    assert "on 1 node(s): 5 copied" in caplog.text
    assert "on 1 node(s): 0 copied" in caplog.text


def test_a_long_copy_is_told_in_rounds_and_every_rank_beats(paths, tmp_path, unpacked, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="hpcreco")
    monkeypatch.setattr(staging, "ROUND_SECONDS", 0.0)  # a shard a round
    index, beats = shards.index(paths), [0, 0]

    def work(parallel):
        def beat():
            beats[parallel.rank] += 1

        return staging.staged(index, tmp_path / "disk", parallel, beat)

    on_ranks(2, work)
    assert unpacked == {path.name: 1 for path in paths}
    assert beats == [3, 3]  # one rank copies three, the other two
    assert [r.message.partition(": ")[2] for r in caplog.records if "to go" in r.message] == [
        "2 shards copied, 3 to go",
        "4 shards copied, 1 to go",
    ]
    assert "5 copied" in caplog.text


def test_each_node_copies_all(paths, tmp_path, unpacked, monkeypatch):
    """Three ranks on two nodes; each node's folder is its own."""
    index = shards.index(paths)
    rank = threading.local()
    monkeypatch.setattr(staging.socket, "gethostname", lambda: "ab"[rank.number % 2])

    def work(parallel):
        rank.number = parallel.rank
        return staging.staged(index, tmp_path / "ab"[parallel.rank % 2], parallel)

    on_ranks(3, work)
    assert unpacked == {path.name: 2 for path in paths}
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(
        p.name for p in (tmp_path / "b").iterdir()
    )


def test_too_little_room_is_said_before_anything_is_copied(paths, tmp_path, unpacked, monkeypatch):
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    index = shards.index(paths)
    errors = on_ranks(2, lambda parallel: staging.staged(index, tmp_path / "disk", parallel))
    assert all("GB free" in str(error) for error in errors)
    assert not unpacked


def test_a_copy_that_fails_ends_all_ranks(paths, tmp_path, monkeypatch):
    def fail(source, target):
        if source.name == "3.h5":
            raise shards.ShardError(f"{target}: no space left")

    monkeypatch.setattr(copies, "unpack", fail)
    index = shards.index(paths)
    errors = on_ranks(2, lambda parallel: staging.staged(index, tmp_path / "disk", parallel))
    assert all("3.h5: no space left" in str(error) for error in errors)


def test_made_events_stay_where_they_are(tmp_path):
    index = SimpleNamespace(on_disk=False)
    assert staging.staged(index, tmp_path / "disk", None) is index
