"""From shards to events, batches and observations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco import shards
from hpcreco.data.batch import Ref, collate
from hpcreco.data.dataset import EventDataset
from hpcreco.experiments.icecube.dataset import PulseReader, seed_columns
from hpcreco.experiments.icecube.observe import observe
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.reading import Reading, ReadingError, maximum_offset, shifted_to_maximum

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def paths(sample):
    return sorted(sample.glob("pulses-*.h5"))


@pytest.fixture
def shard(paths):
    with shards.Shard(paths[0], PULSES) as opened:
        yield opened


def test_what_is_read_is_what_was_written(shard):
    event = PulseReader(Reading(seeds=("smeared",)))(shard, 4, RNG).tables
    stored = shard.read(4, "pulses")
    for field in ("charge", "time", "dom"):
        assert np.array_equal(event["pulses"][field], stored[field])
    assert event["event"]["parameters"].shape == (1, 7) and event["event"]["window"].tolist() == [
        [5000.0, 17000.0]
    ]
    assert event["seeds"]["smeared"].shape == (1, 7)
    assert seed_columns(shard, "smeared") == ("x", "y", "z", "zenith", "azimuth", "energy", "time")
    assert seed_columns(shard, "other") == ()


def test_parameters_come_in_the_order_asked_for(shard):
    wanted = ("cascade_energy", "cascade_x")
    event = PulseReader(Reading(parameters=wanted))(shard, 0, RNG)
    stored = shard.read(0, "event")["parameters"]
    assert event.tables["event"]["parameters"].tolist() == stored[:, [5, 0]].tolist()
    with pytest.raises(ReadingError, match="needs track_zenith"):
        PulseReader(Reading(parameters=("track_zenith",)))(shard, 0, RNG)
    with pytest.raises(ReadingError, match="it has smeared"):
        PulseReader(Reading(seeds=("monopod",)))(shard, 0, RNG)


def test_pulses_of_excluded_doms_can_be_dropped(paths):
    pool = [shards.Shard(path) for path in paths]
    dropped = 0
    for shard in pool:
        for number in range(shard.n_events):
            all_, some = (
                PulseReader(Reading(discard_excluded=d))(shard, number, RNG).tables for d in (False, True)
            )
            gone = np.isin(all_["pulses"]["dom"], all_["excluded"]["dom"])
            assert np.array_equal(some["pulses"]["time"], all_["pulses"]["time"][~gone])
            dropped += gone.sum()
        shard.close()
    assert dropped > 0


def test_a_window_from_pulses_cuts_the_gaps(shard):
    for number in range(shard.n_events):
        tables = PulseReader(Reading(window="pulses", buffer=50.0))(shard, number, RNG).tables
        start, stop = tables["event"]["window"][0]
        time, gaps = tables["pulses"]["time"], tables["gaps"]
        assert (start, stop) == (np.float32(time.min() - 50.0), np.float32(time.max() + 50.0))
        assert (
            (gaps["start"] >= start).all()
            and (gaps["stop"] <= stop).all()
            and (gaps["start"] < gaps["stop"]).all()
        )


def test_one_pulse_without_buffer_is_refused(tmp_path, small):
    from hpcreco.experiments.icecube.pulses import EventRecord, Gaps, Pulses

    attributes = {
        "detector_sha256": small.sha256,
        "detector_shape": small.shape,
        "detector": "",
        "generator": {},
    }
    one = Pulses(np.ones(1), np.full(1, 7.0), np.zeros(1, int))
    none = Pulses(*[np.zeros(0)] * 2, np.zeros(0, int))
    path = tmp_path / "x.h5"
    with shards.ShardWriter(path, PULSES, attributes) as writer:
        for number, pulses in enumerate((one, none)):
            record = EventRecord(pulses, Gaps.none(), np.zeros(0, int), (0.0, 10.0), (0, number, 0, 0))
            writer.append(number, record.tables())
    with shards.Shard(path) as shard:
        with pytest.raises(ReadingError, match="time_window_buffer"):
            PulseReader(Reading(window="pulses"))(shard, 0, RNG)
        buffered = PulseReader(Reading(window="pulses", buffer=100.0))
        assert buffered(shard, 0, RNG).tables["event"]["window"].tolist() == [[-93.0, 107.0]]
        assert buffered(shard, 1, RNG).tables["event"]["window"].tolist() == [[-100.0, 100.0]]
        assert "parameters" not in buffered(shard, 1, RNG).tables["event"]
        with pytest.raises(ReadingError, match="no true parameters"):
            PulseReader(Reading(parameters=("cascade_x",)))(shard, 0, RNG)


def test_shower_maxima_are_where_the_profile_has_them(shard):
    """2.48 / 3.40 / 4.32 / 5.24 / 6.16 m at 10^2 ... 10^6 GeV."""
    energies = 10.0 ** np.arange(2, 7)
    assert np.allclose(maximum_offset(energies), [2.48, 3.40, 4.32, 5.24, 6.16], atol=0.01)
    assert maximum_offset(np.array(0.0)) == 0.0
    down = {"x": 0.0, "y": 0.0, "z": 0.0, "zenith": 0.0, "azimuth": 0.0, "energy": 1e4, "time": 0.0}
    moved = shifted_to_maximum(down)
    assert moved["z"] == pytest.approx(-4.32, abs=0.01)
    assert moved["time"] == pytest.approx(4.32 / 0.299792, abs=0.05)
    plain, shifted = (
        PulseReader(Reading(shift_to_maximum=prefix))(shard, 0, RNG).tables["event"]["parameters"][0]
        for prefix in (None, "cascade_")
    )
    distance = np.linalg.norm(shifted[:3] - plain[:3])
    assert distance == pytest.approx(float(maximum_offset(plain[5])), rel=1e-3)
    assert np.array_equal(plain[3:6], shifted[3:6])


def test_an_observation_holds_every_event_of_the_batch(paths):
    dataset = EventDataset(shards.index(paths, PULSES), PulseReader(Reading()), seed=1)
    refs = [Ref(0, 3), Ref(1, 0), Ref(0, 7)]
    seen = observe(dataset.batch(refs, [1.0] * 3), 70)
    assert seen.n_events == 3 and seen.n_doms == 70
    for slot, ref in enumerate(refs):
        with shards.Shard(paths[ref.shard]) as shard:
            pulses, gaps, excluded = (
                shard.read(ref.event, table) for table in ("pulses", "gaps", "excluded")
            )
        mine = seen.event == slot
        assert np.array_equal(seen.time[mine].numpy(), pulses["time"])
        assert np.array_equal(seen.dom[mine].numpy(), pulses["dom"])
        charge = np.bincount(pulses["dom"], weights=pulses["charge"].astype(float), minlength=70)
        assert np.allclose(seen.dom_charge[slot].numpy(), charge.astype(np.float32), rtol=1e-6)
        assert np.array_equal(seen.gap_start[seen.gap_event == slot].numpy(), gaps["start"])
        assert set(torch.nonzero(~seen.usable[slot]).flatten().tolist()) == set(excluded["dom"].tolist())
    dataset.close()


def test_an_empty_batch_is_an_observation_of_nothing(shard):
    like = PulseReader(Reading())(shard, 0, RNG)
    seen = observe(collate([], like=like), 70)
    assert seen.n_events == 0 and len(seen.charge) == 0 and seen.usable.shape == (0, 70)
    assert seen.dom_charge.shape == (0, 70)
