"""Datasets behind filters are read as HDF5 reads them, without it."""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco import shards
from hpcreco.shards.direct import Hdf5Dataset, reader_of
from hpcreco.shards.filtered import FilteredDataset

DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
FILTERS = {
    "shuffle": {"shuffle": True},
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "shuffle and gzip": {"shuffle": True, "compression": "gzip", "compression_opts": 4},
    "gzip 0": {"shuffle": True, "compression": "gzip", "compression_opts": 0},
}
OTHERS = {
    "lzf": {"compression": "lzf"},
    "checksum": {"compression": "gzip", "fletcher32": True},
    "scale and offset": {"scaleoffset": True},
}


def numbers(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Any bit pattern, NaN included; half of them zero, so that some chunks shrink and some do not."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return (
        np.where(rng.random(size) < 0.5, 0, rng.integers(256, size=size))
        .astype("u1")
        .view(dtype)
        .reshape(shape)
    )


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    width=st.sampled_from([(), (1,), (3,)]),
    rows=st.integers(1, 200),
    chunk=st.integers(1, 90),
    name=st.sampled_from([*FILTERS]),
    data=st.data(),
)
def test_any_rows_are_those_that_hdf5_reads(dtype, width, rows, chunk, name, data):
    values = numbers(dtype, (rows, *width), rows)
    with tempfile.TemporaryDirectory() as folder, h5py.File(Path(folder, "a.h5"), "w") as file:
        options = {"chunks": (chunk, *width), "maxshape": (None, *width), **FILTERS[name]}
        dataset = file.create_dataset("a", data=values, **options)
        file.flush()
        descriptor = os.open(file.filename, os.O_RDONLY)
        reader = reader_of(descriptor, dataset)
        assert isinstance(reader, FilteredDataset)
        for _ in range(4):
            lo = data.draw(st.integers(0, rows))
            hi = data.draw(st.integers(lo, rows))
            found = reader.read(lo, hi)
            assert found.tobytes() == dataset[lo:hi].tobytes() == values[lo:hi].tobytes()
            assert (found.dtype, found.shape) == (dataset.dtype, (hi - lo, *width))
        os.close(descriptor)


def test_chunks_without_some_of_the_filters(tmp_path):
    """The mask of each chunk says which were left out when it was written."""
    rows = [numbers("i4", (8, 2), seed) for seed in range(4)]
    plain = [part.tobytes() for part in rows]
    shuffled = [part.reshape(-1).view("u1").reshape(-1, 4).T.tobytes() for part in rows]
    stored = [zlib.compress(shuffled[0]), zlib.compress(plain[1]), shuffled[2], plain[3]]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", (32, 2), "i4", chunks=(8, 2), shuffle=True, compression="gzip")
        for number, content in enumerate(stored):
            dataset.id.write_direct_chunk((8 * number, 0), content, filter_mask=number)
    with h5py.File(tmp_path / "a.h5") as file, (tmp_path / "a.h5").open("rb") as stream:
        reader = reader_of(stream.fileno(), file["a"])
        assert isinstance(reader, FilteredDataset)
        np.testing.assert_array_equal(reader.read(3, 30), file["a"][3:30])
        np.testing.assert_array_equal(reader.read(0, 32), np.concatenate(rows))


@pytest.mark.parametrize("name", OTHERS)
def test_other_filters_are_left_to_hdf5(tmp_path, name):
    values = np.arange(60, dtype="i4").reshape(20, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        reader = reader_of(-1, file.create_dataset("a", data=values, chunks=(8, 3), **OTHERS[name]))
        assert isinstance(reader, Hdf5Dataset)
        np.testing.assert_array_equal(reader.read(5, 20), values[5:])


def test_so_is_what_is_no_plain_rows(tmp_path):
    gzip = {"compression": "gzip", "shuffle": True}
    values = np.arange(60).reshape(20, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        swapped = file.create_dataset("swapped", data=values.astype(">i4"), chunks=(8, 3), **gzip)
        cut = file.create_dataset("cut", data=values, chunks=(8, 2), **gzip)
        truth = file.create_dataset("truth", data=values % 2 == 0, chunks=(8, 3), **gzip)
        holes = file.create_dataset("holes", (20, 3), "i8", chunks=(8, 3), fillvalue=7, **gzip)
        holes[8:16] = values[8:16]
        for dataset in (swapped, cut, truth, holes):
            reader = reader_of(-1, dataset)
            assert isinstance(reader, Hdf5Dataset)
            np.testing.assert_array_equal(reader.read(5, 20), dataset[5:])


@pytest.fixture
def compressed(tmp_path, toy):
    """A shard of 3 events and where the chunks of points/coords are."""
    path = tmp_path / "a.h5"
    toy.write(path, toy.events([1500, 0, 900]), compression="gzip")
    chunks = []
    with h5py.File(path) as file:
        file["points/coords"].id.chunk_iter(chunks.append)
    assert len(chunks) > 1
    return path, chunks


def assert_refused(path) -> None:
    """The first event is an error by file and dataset, each time it is asked for; HDF5 says so too."""
    with shards.Shard(path) as shard:
        for _ in range(2):
            with pytest.raises(
                shards.ShardError, match=r"a\.h5: points/coords cannot be read .*make it again"
            ):
                shard.read(0, "points", ["coords"])
    with h5py.File(path) as file, pytest.raises(OSError, match="."):
        file["points/coords"][:]


def test_a_damaged_chunk_is_an_error_of_file_and_dataset(compressed):
    """Wherever a byte is changed."""
    path, chunks = compressed
    sound = path.read_bytes()
    first = chunks[0]
    # from the deflated content to its checksum; the first bytes have unused bits
    for place in np.linspace(8, first.size - 1, 12).astype(int):
        damaged = bytearray(sound)
        damaged[first.byte_offset + place] ^= 0x40
        path.write_bytes(damaged)
        assert_refused(path)
    path.write_bytes(sound[: first.byte_offset] + bytes(first.size) + sound[first.byte_offset + first.size :])
    assert_refused(path)


def test_a_chunk_of_another_length_is_an_error(compressed):
    """Sound in itself, but not as many rows as the chunk has."""
    path, _ = compressed
    for rows in (0, 1, 5000):
        with h5py.File(path, "r+") as file:
            file["points/coords"].id.write_direct_chunk((0, 0), zlib.compress(bytes(12 * rows)))
        with (
            shards.Shard(path) as shard,
            pytest.raises(shards.ShardError, match="points/coords.*its rows need"),
        ):
            shard.read(0, "points", ["coords"])


def test_a_file_cut_short_after_it_was_opened(compressed):
    path, chunks = compressed
    with shards.Shard(path) as shard:
        shard.read(0, "points", ["tick"])
        os.truncate(path, chunks[0].byte_offset + chunks[0].size // 2)
        with pytest.raises(shards.ShardError, match=r"a\.h5: points/coords.*ends inside"):
            shard.read(0, "points", ["coords"])


def test_threads_that_read_neighbours_get_their_own(tmp_path, toy):
    """Events share chunks; reading any of them in any order and in several threads gives each its rows."""
    sizes = np.random.default_rng(0).integers(0, 700, 24).tolist()
    events = toy.events(sizes)
    toy.write(tmp_path / "a.h5", events, compression="gzip")
    wrong = []

    def read_all(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, len(sizes), 100):
            found = shard.read(int(number), "points", ["coords", "weight"])
            wanted = events[number]["points"]
            same = [np.array_equal(rows, wanted[field], equal_nan=True) for field, rows in found.items()]
            if not all(same):
                wrong.append(number)

    with shards.Shard(tmp_path / "a.h5") as shard:
        threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_what_was_read_may_be_changed(tmp_path, toy):
    """Rows are the caller's: changing them does not change what is read next."""
    events = toy.events([300, 300])
    toy.write(tmp_path / "a.h5", events, compression="gzip")
    with shards.Shard(tmp_path / "a.h5", toy.schema) as shard:
        shard.read(0, "points", ["coords"])["coords"][:] = 0
        for number, event in enumerate(events):
            toy.assert_event(shard, number, event)
