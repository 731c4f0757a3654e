"""Collation keeps every row of every event, in its slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco.data.batch import BatchError, Event, Ref, collate, empty_like


def event(rows: int, hits: int = 1, seed: int = 0, width: int = 2) -> Event:
    rng = np.random.default_rng(seed)
    return Event(
        {
            "voxels": {
                "coords": rng.integers(-5, 99, (rows, 3), np.int32),
                "features": rng.normal(size=(rows, width)).astype(np.float32),
            },
            "hits": {"tick": rng.integers(0, 6000, hits).astype(np.uint16)},
        }
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=6))
def test_every_event_is_found_again_in_its_slot(sizes):
    events = [event(rows, hits, seed) for seed, (rows, hits) in enumerate(sizes)]
    batch = collate(events, [Ref(0, n) for n in range(len(events))], range(len(events)))
    assert batch.n_events == len(events)
    assert batch.cost == sum(range(len(events)))
    for slot, one in enumerate(events):
        lo, hi = batch.offsets["voxels"][slot : slot + 2]
        coords = batch["voxels/coords"][lo:hi]
        assert coords.dtype == torch.int32
        assert (coords[:, 0] == slot).all()
        np.testing.assert_array_equal(coords[:, 1:], one.tables["voxels"]["coords"])
        np.testing.assert_array_equal(batch["voxels/features"][lo:hi], one.tables["voxels"]["features"])
        lo, hi = batch.offsets["hits"][slot : slot + 2]
        np.testing.assert_array_equal(batch["hits/tick"][lo:hi], one.tables["hits"]["tick"])
        assert (batch.slots("hits")[lo:hi] == slot).all()
    assert batch.rows("voxels") == sum(rows for rows, _ in sizes)


def test_an_empty_batch_has_the_tables_dtypes_and_widths_of_a_full_one():
    full = collate([event(3)], [Ref(0, 0)], [3.0])
    for like in (event(3), empty_like(event(3))):
        empty = collate([], like=like)
        assert empty.n_events == 0
        assert empty.cost == 0
        assert empty.tensors.keys() == full.tensors.keys()
        for key, tensor in full.tensors.items():
            assert empty[key].dtype == tensor.dtype
            assert empty[key].shape == (0, *tensor.shape[1:])
        assert empty.offsets["voxels"].tolist() == [0]


def test_unsigned_and_foreign_byte_order_become_what_torch_computes_with():
    fields = {"a": np.array([65535], "u2"), "b": np.array([2**32 - 1], ">u4"), "c": np.array([1.5], ">f8")}
    one = Event({"t": fields})
    batch = collate([one, one])
    assert batch["t/a"].dtype == torch.int32
    assert (batch["t/a"] + 1).tolist() == [65536] * 2
    assert batch["t/b"].tolist() == [2**32 - 1] * 2
    assert batch["t/c"].tolist() == [1.5, 1.5]


def test_moving_a_batch_keeps_everything_else():
    batch = collate([event(2)], [Ref(4, 1)], [2.0])
    moved = batch.to("meta")
    assert moved["voxels/coords"].device.type == "meta"
    assert moved.offsets["voxels"].tolist() == [0, 2]
    assert (moved.refs, moved.cost, moved.n_events) == (batch.refs, batch.cost, 1)


def test_events_that_do_not_fit_together_are_refused():
    with pytest.raises(BatchError, match=r"voxels/features.*width"):
        collate([event(2), event(2, width=3)])
    with pytest.raises(BatchError, match="expected the fields"):
        collate(
            [
                event(2),
                Event({"voxels": {"coords": np.zeros((1, 3), np.int32)}, "hits": {"tick": np.zeros(1)}}),
            ]
        )
    with pytest.raises(BatchError, match="number of rows"):
        collate([Event({"t": {"a": np.zeros(2), "b": np.zeros(3)}})])
    with pytest.raises(BatchError, match="like"):
        collate([])
