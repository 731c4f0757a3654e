"""Threads share out the slices of events: each chunk is made once, rows come in order, an event at a time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hpcreco.compiling import compiled
from hpcreco.experiments.protodune.tiling import chunks
from hpcreco.experiments.protodune.tiling.chunks import take
from hpcreco.experiments.protodune.tiling.events import tiled
from hpcreco.experiments.protodune.tiling.tiler import TilingError
from tests.unit.protodune.test_tiling import FACE, random_samples, same, tiler


@compiled()
def _take_all(counter, seen):
    number = take(counter)
    while number < len(seen):
        seen[number] += 1
        number = take(counter)


def test_threads_that_take_at_once_are_never_given_the_same_number():
    counter, seen = np.zeros(1, np.int64), np.zeros(200_000, np.int64)
    _take_all(counter.copy(), seen[:0])  # compiled before the threads begin
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(_take_all, counter, seen) for _ in range(4)]:
            job.result()
    assert (seen == 1).all()
    assert counter[0] == len(seen) + 4


@pytest.mark.parametrize(("n_slices", "threads"), [(750, 1), (750, 2), (3, 8), (1, 2), (0, 2)])
def test_chunks_cover_every_slice_once_and_none_is_empty(n_slices, threads):
    edges = chunks.chunks(n_slices, threads).edges
    assert (edges[0], edges[-1]) == (0, n_slices)
    assert (np.diff(edges) > 0).all()


def test_rows_are_put_in_the_order_of_the_chunks_whoever_made_them():
    shared = chunks.chunks(4, 2)
    shared.rows[:] = [[1, 0, 2], [0, 0, 1], [0, 1, 1], [1, 2, 5]]
    of_worker = [np.array([2]), np.array([0, 1, 3, 4, 5])]
    assert np.array_equal(chunks.in_order(shared, of_worker), np.arange(6))


class Waveforms:
    """A waveform file of events made on the spot, and which of them were read."""

    path = Path("waveforms.h5")

    def __init__(self, bad=()):
        self.bad, self.read = bad, []

    def waveform(self, event):
        self.read.append(event)
        tick, channel, value = random_samples(event)
        return tick, channel, value + (np.inf if event in self.bad else 0)


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("threads", [1, 3])
def test_events_come_in_order_and_few_are_read_ahead(threads, engine):
    file, alone = Waveforms(), tiler(FACE)
    events = [4, 2, 7, 1, 3]
    for number, tiles in enumerate(tiled(tiler(FACE, threads=threads, engine=engine), file, events)):
        assert same(tiles, alone.tile(*random_samples(events[number])))
        assert file.read == events[: number + (1 if threads == 1 else 3)]
    assert number == 4


@pytest.mark.parametrize("threads", [1, 3])
def test_an_event_that_cannot_be_tiled_is_named(threads):
    with pytest.raises(TilingError, match=r"waveforms\.h5: event 2: .* not finite"):
        list(tiled(tiler(FACE, threads=threads), Waveforms(bad=[2]), range(4)))


def test_one_tiler_serves_several_threads_at_once():
    shared, events = tiler(FACE, threads=2), range(6)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda event: shared.tile(*random_samples(event)), events))
    for event, tiles in zip(events, made, strict=True):
        assert same(tiles, tiler(FACE).tile(*random_samples(event)))
