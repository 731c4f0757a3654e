"""An unpacked copy says the same as its original, appears whole or not at all, and is read in its place."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpcreco import shards
from hpcreco.shards import attributes, staging
from hpcreco.shards.direct import DirectDataset


@pytest.fixture(params=["default", "gzip", "none"])
def original(request, tmp_path, toy):
    path = tmp_path / "original.h5"
    with shards.ShardWriter(
        path, toy.schema, toy.attributes, {"points/features": ("a", "b")}, request.param
    ) as writer:
        for number, rows in enumerate([3000, 0, 17, 5000]):
            writer.append(7 * number, toy.event(number, rows, truth=number))
    return path


def test_a_copy_has_the_same_content_without_filters(original, tmp_path, monkeypatch, toy):
    monkeypatch.setattr(staging, "_BLOCK", 1 << 12)  # many blocks
    copy = tmp_path / "disk/copy.h5"
    staging.unpack(original, copy)
    assert shards.validate(copy, toy.schema) == []  # its digest, too, is that of its content
    with shards.Shard(original) as one, shards.Shard(copy) as two:
        assert one.digest == two.digest
        assert one.attributes == two.attributes
        assert one.tables == two.tables
        assert one.columns("points", "features") == two.columns("points", "features") == ("a", "b")
        for table in one.tables:
            for event in range(one.n_events):
                first, second = one.read(event, table), two.read(event, table)
                for field, rows in first.items():
                    np.testing.assert_array_equal(rows, second[field])
                    assert rows.dtype == second[field].dtype
    with h5py.File(original) as one, h5py.File(copy) as two:
        assert attributes.load(one["points/features"]) == attributes.load(two["points/features"])
        assert two["points/features"].chunks is None


def test_a_copy_is_read_as_plain_bytes(original, tmp_path):
    staging.unpack(original, tmp_path / "copy.h5")
    with shards.Shard(tmp_path / "copy.h5") as shard:
        assert isinstance(shard._column("points", "features"), DirectDataset)


def test_its_size_is_known_before(original, tmp_path):
    copy = tmp_path / "copy.h5"
    staging.unpack(original, copy)
    size = staging.unpacked_size(original)
    assert size == staging.unpacked_size(copy)
    assert size <= copy.stat().st_size <= size + 20_000


@pytest.mark.parametrize("original", ["gzip", "lzf"], indirect=True)
def test_a_damaged_original_leaves_no_copy(original, tmp_path):
    with h5py.File(original, "r+") as file:
        at = file["points/features"].id.get_chunk_info(0).byte_offset
    with original.open("r+b") as stream:
        stream.seek(at)
        stream.write(b"\xff" * 64)
    with pytest.raises(shards.ShardError, match=r"original\.h5"):
        staging.unpack(original, tmp_path / "disk/copy.h5")
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_pool_reads_the_copy_and_the_original_when_it_is_gone(original, tmp_path, toy):
    index = shards.index([original])
    copy = staging.staged_path(tmp_path / "disk", original, index.digests[0])
    staging.unpack(original, copy)
    index = replace(index, staged=(str(copy),))
    expected = toy.event(0, 3000)["points"]["coords"]
    moved = original.rename(tmp_path / "elsewhere.h5")
    pool = shards.Pool(index)
    np.testing.assert_array_equal(pool.read(0, 0, "points", ["coords"])["coords"], expected)
    assert pool.shard(0).path == original  # what reads by folder or name sees the original's
    pool.close()
    moved.rename(original)
    copy.unlink()
    np.testing.assert_array_equal(pool.read(0, 0, "points", ["coords"])["coords"], expected)
    pool.close()


def test_a_copy_of_other_content_is_refused(original, tmp_path, toy):
    index = shards.index([original])
    other = tmp_path / "other.h5"
    with shards.ShardWriter(other, toy.schema, toy.attributes) as writer:
        writer.append(0, toy.event(9, 5))
    with pytest.raises(shards.ShardError, match="replaced since"):
        shards.Pool(replace(index, staged=(str(other),))).shard(0)
