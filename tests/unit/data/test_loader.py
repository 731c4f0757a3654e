"""What the loader yields depends on the plan and the seed alone; errors name the file; nothing hangs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcreco import shards
from hpcreco.data.batch import Event, Ref
from hpcreco.data.dataset import DataError, EventDataset
from hpcreco.data.loader import Loader
from hpcreco.data.plan import StepPlanner
from hpcreco.data.randomness import PLAN, READ, permutation, stream
from hpcreco.data.sharing import share, sweep

SCHEMA = shards.Schema(
    "hpcreco/toy/points",
    1,
    (
        shards.Table(
            "points", (shards.Field("coords", "int32", ("x", "y", "z")), shards.Field("value", "float32"))
        ),
    ),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> shards.Index:
    folder: Path = tmp_path_factory.mktemp("points")
    rng = np.random.default_rng(3)
    for number, events in enumerate([3, 1, 0, 4]):
        with shards.ShardWriter(folder / f"{number}.h5", SCHEMA, {}) as writer:
            for event in range(events):
                rows = int(rng.integers(0, 5))
                coords = rng.integers(0, 9, (rows, 3)).astype(np.int32)
                points = {"coords": coords, "value": rng.normal(size=rows).astype(np.float32)}
                writer.append(10 * number + event, {"points": points})
    return shards.index(sorted(folder.iterdir()), SCHEMA)


def noisy(shard: shards.Shard, event: int, rng: np.random.Generator) -> Event:
    """The event with noise of its own, after a pause that shuffles the order in which threads finish."""
    time.sleep(0.002 * ((event * 7) % 3))
    fields = dict(shard.read(event, "points"))
    fields["value"] = fields["value"] + rng.normal(size=len(fields["value"])).astype(np.float32)
    return Event({"points": fields})


def plan(index: shards.Index, epochs: int = 2):
    costs = index.rows["points"].astype(float)
    planner = StepPlanner(index, costs, "events", 3, seed=9)
    for epoch in range(epochs):
        for step in planner.stream(epoch):
            yield share(step, 0, 1, budget=4.0)
            if step.last:
                break


def loaded(index: shards.Index, workers: int, prefetch: int, seed: int = 5) -> list:
    with Loader(EventDataset(index, noisy, seed), plan(index), workers, prefetch) as loader:
        return [(s, batches) for s, batches in loader]


def test_batches_do_not_depend_on_threads_or_prefetch(index):
    reference = loaded(index, 0, 0)
    assert len(reference) == 6
    for workers, prefetch in [(1, 0), (1, 3), (4, 1), (4, 8)]:
        again = loaded(index, workers, prefetch)
        assert [s for s, _ in again] == [s for s, _ in reference]
        for (_, ours), (_, theirs) in zip(again, reference, strict=True):
            assert [b.refs for b in ours] == [b.refs for b in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert all(torch.equal(one[key], other[key]) for key in one.tensors)


def test_randomness_is_an_events_own_and_new_in_every_draw(index):
    dataset = EventDataset(index, noisy, 5)
    ref = Ref(3, 1) if index.rows["points"][5] else Ref(3, 2)
    one = dataset.event(ref, 0).tables["points"]["value"]
    dataset.event(Ref(0, 0), 0)
    np.testing.assert_array_equal(dataset.event(ref, 0).tables["points"]["value"], one)
    assert not np.array_equal(dataset.event(ref, 1).tables["points"]["value"], one)
    assert not np.array_equal(EventDataset(index, noisy, 6).event(ref, 0).tables["points"]["value"], one)


def test_a_rank_without_events_gets_an_empty_batch_of_the_right_kind(index):
    costs = index.rows["points"].astype(float)
    step = StepPlanner(index, costs, "events", 1, seed=0).step(0, 0, 2)
    idle = [share(step, rank, 2) for rank in range(2) if not share(step, rank, 2).micro_batches[0][0]]
    assert len(idle) == 1
    with Loader(EventDataset(index, noisy, 0), idle, 1) as loader:
        ((_, (batch,)),) = list(loader)
    assert batch.n_events == 0
    assert batch["points/coords"].shape == (0, 4)
    assert batch["points/value"].dtype == torch.float32


def test_a_pool_that_is_too_small_for_its_threads_closes_no_file_in_use(index):
    dataset = EventDataset(index, noisy, 0)
    dataset._pool.limit = 1
    shares = sweep(index, np.ones(index.n_events), 0, 1, 1.0)[::-1] * 5
    with Loader(dataset, sorted(shares, key=lambda s: s.micro_batches[0][0][0].event), 4, 8) as loader:
        assert len(list(loader)) == 5 * index.n_events


def test_a_sweep_over_ranks_reads_every_event_once(index):
    costs = index.rows["points"].astype(float)
    seen = []
    for rank in range(3):
        with Loader(EventDataset(index, noisy, 0), sweep(index, costs, rank, 3, 5.0), 2) as loader:
            seen += [ref for _, batches in loader for batch in batches for ref in batch.refs]
    assert sorted(seen) == [Ref(s, e) for s, n in enumerate(np.diff(index.first)) for e in range(n)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_turn_and_names_file_and_event(index, workers):
    def broken(shard, event, rng):
        if shard.path.name == "3.h5" and event == 2:
            raise ZeroDivisionError("bad value")
        return noisy(shard, event, rng)

    shares = sweep(index, np.ones(index.n_events), 0, 1, 1.0)
    taken = 0
    loader = Loader(EventDataset(index, broken, 0), shares, workers)
    with loader, pytest.raises(DataError, match=r"3\.h5, event 2: ZeroDivisionError: bad value"):  # noqa: PT012
        for _ in loader:
            taken += 1
    assert taken == 6


def test_a_file_that_changed_under_the_run_is_named(index, tmp_path):
    path = tmp_path / "short.h5"
    path.write_bytes(Path(index.paths[3]).read_bytes())
    other = shards.index([path], SCHEMA)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"short\.h5"):
        EventDataset(other, noisy, 0).event(Ref(0, 0))


def test_leaving_early_ends_the_threads_and_reads_no_more(index):
    before = set(threading.enumerate())
    reads = []

    def counting(shard, event, rng):
        reads.append(event)
        return noisy(shard, event, rng)

    def endless():
        while True:
            yield from plan(index)

    with Loader(EventDataset(index, counting, 0), endless(), 3, 2) as loader:
        next(iter(loader))
    assert set(threading.enumerate()) <= before
    assert len(reads) <= 3 * 4  # four shares of three events: the one taken, two ahead, one begun
    assert list(loader) == []


class Clock:
    """Stands still but for `pass_second`; `looked` when somebody has begun to wait."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.now, self.looked = 0.0, threading.Event()

    def perf_counter(self) -> float:
        self.looked.set()
        return self.now

    def pass_second(self) -> None:
        self.now += 1.0


@pytest.mark.parametrize("workers", [0, 1])
def test_waiting_is_counted(index, workers, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("hpcreco.data.loader.time", clock)

    def slow(shard, event, rng):
        assert clock.looked.wait(300)
        clock.pass_second()
        return noisy(shard, event, rng)

    shares = sweep(index, np.ones(index.n_events), 0, 1)
    assert len(shares) == 1
    with Loader(EventDataset(index, slow, 0), shares, workers) as loader:
        list(loader)
    assert loader.waited == index.n_events


def test_streams_of_different_names_differ_and_permutations_are_permutations():
    names = [(1, READ, 0, 0), (1, READ, 0, 1), (1, READ, 1, 0), (2, READ, 0, 0), (1, PLAN, 0, 0)]
    draws = {stream(*name).integers(2**63) for name in names}
    assert len(draws) == 5
    assert stream(1, READ, 2, 3).integers(2**63) == stream(1, READ, 2, 3).integers(2**63)
    assert sorted(permutation(50, 1, PLAN, 0, 3)) == list(range(50))
