"""What is written is what is read: any sizes of events, any layout."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco import shards
from hpcreco.shards.direct import DirectDataset, FilteredDataset, Hdf5Dataset

COMPRESSIONS = ["default", "none", "lzf", "gzip-9"]
sizes = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 40_000)), max_size=6)


@settings(max_examples=25, deadline=None)
@given(sizes=sizes, compression=st.sampled_from(COMPRESSIONS))
def test_every_event_comes_back(toy, sizes, compression):
    events = toy.events(sizes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        toy.write(path, events, compression=compression, first_id=100)
        assert shards.validate(path, toy.schema) == []
        assert shards.validate(path) == []
        with shards.Shard(path, toy.schema) as shard:
            assert shard.n_events == len(sizes)
            assert shard.event_ids.tolist() == list(range(100, 100 + len(sizes)))
            if sizes:
                assert shard.rows("points").tolist() == sizes
                assert shard.rows("beam").tolist() == [1] * len(sizes)
            for number, event in enumerate(events):
                toy.assert_event(shard, number, event)
            for lo in range(len(sizes)):
                block = shard.read_events(lo, len(sizes), "points", ["coords"])
                expected = np.concatenate([event["points"]["coords"] for event in events[lo:]])
                np.testing.assert_array_equal(block["coords"], expected)


@settings(max_examples=15, deadline=None)
@given(sizes=sizes, data=st.data())
def test_the_digest_says_what_the_content_says(toy, sizes, data):
    """Neither the layout nor volatile attributes change it; any number and any other attribute does."""
    events = toy.events(sizes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        digest = toy.write(path, events)
        for compression in COMPRESSIONS:
            assert (
                toy.write(path, events, compression=compression, attributes={"note": compression}) == digest
            )
        assert shards.Shard(path).digest == digest
        assert toy.write(path, events, attributes={"tpc": [1, 6]}) != digest
        assert toy.write(path, events, attributes={"threshold": 1.1e-3}) != digest
        if sizes:
            assert toy.write(path, events, first_id=1) != digest
            assert toy.write(path, events[:-1]) != digest
            changed = toy.events(sizes)
            changed[data.draw(st.integers(0, len(sizes) - 1))]["beam"]["momentum"][1] += 1
            assert toy.write(path, changed) != digest
        filled = [number for number, rows in enumerate(sizes) if rows]
        if len(filled) > 1:  # the same rows in all, cut into events elsewhere
            a, b = events[filled[0]]["points"], events[filled[1]]["points"]
            moved = {name: (np.concatenate([a[name], b[name][:1]]), b[name][1:]) for name in a}
            for place, number in enumerate(filled[:2]):
                events[number] = events[number] | {
                    "points": {name: pair[place] for name, pair in moved.items()}
                }
            assert toy.write(path, events) != digest


def test_attributes_come_back_as_python(toy, tmp_path):
    long = {"text": "x" * 200_000}  # larger than HDF5's limit for compact attributes
    toy.write(tmp_path / "a.h5", [], attributes={"options": long, "tpc": []})
    with shards.Shard(tmp_path / "a.h5") as shard:
        found = shard.attributes
        assert {name: found[name] for name in ("options", "tpc", "names", "threshold")} == toy.attributes | {
            "options": long,
            "tpc": [],
        }
        assert {"created_utc", "host", "command_line", "code_version"} <= set(found)
        assert shard.columns("points", "features") == ("V", "X")
        assert shard.columns("points", "coords") == ("x", "y", "z")
        assert shard.columns("points", "tick") == ()


def varies(dtype) -> bool:
    """Does a value of this type, or a field of it, have a length of its own?"""
    import h5py

    text = h5py.check_string_dtype(dtype)
    inside = [dtype[name] for name in dtype.names or ()]
    return (
        h5py.check_vlen_dtype(dtype) is not None
        or (text is not None and text.length is None)
        or any(map(varies, inside))
    )


def test_no_variable_length_types(toy, tmp_path):
    import h5py

    toy.write(tmp_path / "a.h5", toy.events([3]))
    with h5py.File(tmp_path / "a.h5") as file:
        found = [file]
        file.visititems(lambda name, item: found.append(item))
        kinds = [item.attrs.get_id(name).dtype for item in found for name in item.attrs]
        kinds += [item.dtype for item in found if isinstance(item, h5py.Dataset)]
        assert len(kinds) > len(found)
        assert not any(map(varies, kinds))


def test_shards_are_read_without_hdf5(toy, tmp_path):
    """Both layouts of unfiltered data, contiguous and chunked, and what is behind the usual filters."""
    for sizes in ([1000, 10], [80_000, 70_000, 3]):
        events = toy.events(sizes)
        for compression, reader in (("none", DirectDataset), ("gzip", FilteredDataset), ("lzf", Hdf5Dataset)):
            toy.write(tmp_path / "a.h5", events, compression=compression)
            with shards.Shard(tmp_path / "a.h5", toy.schema) as shard:
                for number, event in enumerate(events):
                    toy.assert_event(shard, number, event)
                assert type(shard._column("points", "features")) is reader


def test_by_default_a_field_is_filtered_where_that_pays(toy, tmp_path):
    for sizes in ([3000, 10], [80_000, 70_000, 3]):
        events = toy.events(sizes)
        for number, event in enumerate(events):
            event["points"]["tick"] = np.full(
                sizes[number], number, np.uint16
            )  # the other fields are random numbers
        toy.write(tmp_path / "a.h5", events)
        with shards.Shard(tmp_path / "a.h5", toy.schema) as shard:
            for number, event in enumerate(events):
                toy.assert_event(shard, number, event)
            found = {name: shard._file["points"][name].compression for name in ("coords", "features", "tick")}
        assert found == {"coords": None, "features": None, "tick": "gzip"}
        assert shards.validate(tmp_path / "a.h5", toy.schema) == []


def test_optional_parts_may_be_absent(toy, tmp_path):
    event = toy.event(1, 4)
    del event["truth"], event["points"]["weight"]
    toy.write(tmp_path / "a.h5", [event, event])
    assert shards.validate(tmp_path / "a.h5", toy.schema) == []
    with shards.Shard(tmp_path / "a.h5", toy.schema) as shard:
        assert shard.has("points", "tick")
        assert not shard.has("points", "weight")
        assert not shard.has("truth")
        with pytest.raises(shards.ShardError, match="truth"):
            shard.rows("truth")


def test_the_callers_array_may_be_reused(toy, tmp_path):
    event = toy.event(1, 10)
    event["points"]["coords"] = buffer = np.zeros((10, 3), np.int32)
    with shards.ShardWriter(tmp_path / "a.h5", toy.schema, toy.attributes) as writer:
        for number in range(3):
            buffer[:] = number
            writer.append(number, event)
    with shards.Shard(tmp_path / "a.h5") as shard:
        for number in range(3):
            assert (shard.read(number, "points", ["coords"])["coords"] == number).all()


def test_artefacts(toy, tmp_path):
    schema = shards.Schema("hpcreco/toy/statistics", 1, attributes=(shards.Attribute("index_digest", "str"),))
    arrays = {"mean": np.array(1.5), "table": np.arange(6).reshape(2, 3), "none": np.zeros((0, 2), "f4")}
    path = tmp_path / "deep" / "statistics.h5"
    digest = shards.write_artefact(path, schema, {"index_digest": "abc"}, arrays)
    assert shards.validate(path, schema) == []
    found = shards.read_artefact(path, schema)
    assert found.digest == digest
    assert found.attributes["index_digest"] == "abc"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    assert shards.write_artefact(path, schema, {"index_digest": "abd"}, arrays) != digest
    with pytest.raises(shards.ShardError, match="hpcreco/toy/points"):
        shards.read_artefact(path, toy.schema)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_attributes_known_only_after_the_events(toy, tmp_path):
    """They count like those given at the start, and are checked like them."""
    path = tmp_path / "a.h5"
    with shards.ShardWriter(path, toy.schema, toy.attributes) as writer:
        writer.append(0, toy.event(0, 5))
        writer.set_attribute("threshold", 0.5)
        with pytest.raises(shards.ShardError, match="colour"):
            writer.set_attribute("colour", 1)
    assert shards.validate(path, toy.schema) == []
    with shards.Shard(path) as shard:
        assert shard.attributes["threshold"] == 0.5
        digest = shard.digest
    with shards.ShardWriter(path, toy.schema, toy.attributes | {"threshold": 0.5}) as writer:
        writer.append(0, toy.event(0, 5))
    assert writer.digest == digest


def test_an_event_is_added_whole_or_not_at_all(toy, tmp_path):
    """A caller that skips an event which does not fit goes on with sound tables."""
    bad = toy.event(1, 3)
    bad["truth"] = {"pdg": [2**40]}  # after tables that do fit
    events = [toy.event(0, 4), toy.event(2, 5)]
    for order in ([events[0], bad, events[1]], [bad, *events]):
        with shards.ShardWriter(tmp_path / "a.h5", toy.schema, toy.attributes) as writer:
            for event in order:
                try:
                    writer.append(writer.n_events, event)
                except shards.ShardError:
                    assert event is bad
        assert shards.validate(tmp_path / "a.h5", toy.schema) == []
        with shards.Shard(tmp_path / "a.h5", toy.schema) as shard:
            assert shard.n_events == 2
            for number, event in enumerate(events):
                toy.assert_event(shard, number, event)
