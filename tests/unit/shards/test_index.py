"""Many shards as one: the index, and the pool of open files."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcreco import shards


def open_files(folder: Path) -> int:
    """How often this process has files of a folder open."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            count += descriptor.readlink().is_relative_to(folder)
    return count


SIZES = [[3, 0, 20], [], [7], [0, 1, 2, 5]]


@pytest.fixture
def paths(tmp_path, toy):
    made = [tmp_path / f"{number}.h5" for number in range(len(SIZES))]
    for number, (path, sizes) in enumerate(zip(made, SIZES, strict=True)):
        events = [toy.event(100 * number + event, rows) for event, rows in enumerate(sizes)]
        toy.write(path, events, first_id=10 * number)
    return made


def test_the_index_agrees_with_the_files(paths, toy):
    index = shards.index(paths, toy.schema)
    assert index.n_events == sum(map(len, SIZES))
    assert index.n_shards == len(SIZES)
    assert index.rows["points"].tolist() == [rows for sizes in SIZES for rows in sizes]
    assert index.event_ids.tolist() == [0, 1, 2, 20, 30, 31, 32, 33]
    assert index.sizes.tolist() == [path.stat().st_size for path in paths]
    located = [index.locate(event) for event in range(index.n_events)]
    assert located == [(shard, event) for shard, sizes in enumerate(SIZES) for event in range(len(sizes))]
    for outside in (-1, index.n_events):
        with pytest.raises(shards.ShardError):
            index.locate(outside)


def test_the_digest_is_that_of_the_contents_in_order(paths, toy, tmp_path):
    index = shards.index(paths)
    assert shards.index(paths).digest == index.digest
    assert shards.index(paths[::-1]).digest != index.digest
    assert shards.index(paths[:3]).digest != index.digest
    moved = tmp_path / "elsewhere.h5"
    os.rename(paths[0], moved)
    assert shards.index([moved, *paths[1:]]).digest == index.digest
    assert pickle.loads(pickle.dumps(index)).digest == index.digest


def test_no_event_is_read_to_build_it(paths, toy, monkeypatch):
    monkeypatch.setattr(shards.Shard, "read_rows", lambda *a: pytest.fail("read events"))
    monkeypatch.setattr("hashlib.sha256", lambda *a: pytest.fail("rehashed"))
    shards.index(paths, toy.schema)


def looked_at(path) -> None:
    """Everything but the events, with h5py alone. Raises whatever h5py raises on damage."""
    with h5py.File(path) as file:
        dict(file.attrs)
        for group in file.values():
            shapes = {name: dataset.shape for name, dataset in group.items()}
            if "offsets" in shapes:
                group["offsets"][:]
        file["events/id"][:]


def test_damage_of_what_is_not_events_is_found_before_any_is_read(tmp_path, toy):
    """One changed byte: whoever reads all attributes and all shapes finds no more than the index, which does not."""
    toy.write(tmp_path / "a.h5", toy.events([3, 0, 2]))
    sound = (tmp_path / "a.h5").read_bytes()
    damaged, found = tmp_path / "b.h5", 0
    for place in range(0, len(sound), 1 + len(sound) // 250):
        damaged.write_bytes(sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :])
        try:
            looked_at(damaged)
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError):
            found += 1
            with pytest.raises(shards.ShardError, match=r"b\.h5"):
                shards.entry(damaged)
    assert found > 30


def test_attributes_are_read_when_they_are_asked_for(paths, toy, monkeypatch):
    with shards.Shard(paths[0]) as shard:
        assert shard.attributes["threshold"] == toy.attributes["threshold"]
    assert shard.attributes["options"] == toy.attributes["options"]  # they stay
    with shards.Shard(paths[0]) as closed:
        pass
    assert closed.digest == shard.digest
    with pytest.raises(shards.ShardError, match="after it was closed"):
        closed.attributes["threshold"]
    monkeypatch.setattr("hpcreco.shards.attributes.load", lambda *a: pytest.fail("read attributes"))
    shards.index(paths)


def test_shards_of_different_formats_are_refused(paths, tmp_path):
    other = tmp_path / "other.h5"
    with shards.ShardWriter(other, shards.Schema("hpcreco/toy/other", 1), {}):
        pass
    with pytest.raises(shards.ShardError, match="hpcreco/toy/other"):
        shards.index([*paths, other])


def test_no_shards_are_no_events():
    index = shards.index([])
    assert index.n_events == 0
    assert index.rows == {}


def test_the_pool_keeps_few_files_open_and_reads_the_same_from_many_threads(paths, toy, tmp_path):
    index = shards.index(paths, toy.schema)
    pool = shards.Pool(index, toy.schema, limit=2)
    wrong, wanted = [], [index.locate(event) for event in range(index.n_events)]

    def read_all(seed: int) -> None:
        for place in np.random.default_rng(seed).integers(0, len(wanted), 150):
            shard, event = wanted[place]
            found = pool.read(shard, event, "points", ["coords"])["coords"]
            expected = toy.event(100 * shard + event, SIZES[shard][event])["points"]["coords"]
            if not np.array_equal(found, expected):
                wrong.append((shard, event))

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < open_files(tmp_path) <= 4  # HDF5's and ours, of two shards
    pool.close()
    assert open_files(tmp_path) == 0


def test_the_pool_travels_without_its_handles(paths, toy):
    pool = shards.Pool(shards.index(paths), toy.schema)
    pool.read(0, 0, "points")
    other = pickle.loads(pickle.dumps(pool))
    pool.close()
    np.testing.assert_array_equal(other.read(0, 0, "points")["coords"], toy.event(0, 3)["points"]["coords"])


def test_a_shard_replaced_after_indexing_is_refused(paths, toy):
    pool = shards.Pool(shards.index(paths), toy.schema)
    toy.write(paths[2], toy.events([8]))
    with pytest.raises(shards.ShardError, match="replaced"):
        pool.read(2, 0, "points")


@pytest.mark.parametrize("compression", ["none", "default"])
def test_an_open_shard_stays_what_it_was(tmp_path, toy, compression):
    """A job that makes a shard again, with another layout, does not disturb who has it open."""
    path = tmp_path / "a.h5"
    events = toy.events([300, 40])
    toy.write(path, events, compression=compression)
    with shards.Shard(path, toy.schema) as shard:
        toy.write(path, toy.events([1, 5000, 9])[::-1], compression=compression)
        for number, event in enumerate(events):
            toy.assert_event(shard, number, event)


def test_entries_of_several_processes_join_to_the_same_index(paths, toy):
    entries = pickle.loads(pickle.dumps([shards.entry(path, toy.schema) for path in paths]))
    joined, index = shards.join(entries), shards.index(paths)
    assert (joined.paths, joined.digest) == (index.paths, index.digest)
    for table in index.rows:
        assert joined.rows[table].tolist() == index.rows[table].tolist()
