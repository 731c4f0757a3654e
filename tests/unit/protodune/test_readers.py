"""Files of other programs through a user's function, and the original's tables of objects."""

import argparse

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import convert, parsed, readers
from hpcreco.experiments.protodune.parsed.objects import import_npz

READER = """\
import numpy as np
from hpcreco.experiments.protodune.parsed import TruthVoxels, Waveforms
from hpcreco.experiments.protodune.readers import ReadEvent

def read(path, tpc):
    rows = np.loadtxt(path, ndmin=2)
    for number in np.unique(rows[:, 0]):
        tick, channel, charge = rows[rows[:, 0] == number, 1:].T
        voxels = np.stack([tick, tick + tpc, tick], axis=1).astype(int)
        yield ReadEvent(int(number), {
            "wire": Waveforms(tick.astype(int), channel.astype(int), charge),
            "depoElectron": TruthVoxels(voxels, charge[:, None], ("electrons",), None, None),
        })

read.attributes = {"n_ticks": 240, "dead_channels": [5]}

def wrong(path, tpc):
    yield "nothing"

def product(path, tpc):
    yield from ()

product.products = ("wires",)
"""


def run(*arguments):
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A text file of another program, and a module that reads it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_reader.py").write_text(READER)
    (tmp_path / "event.txt").write_text("3 200 17 5.5\n3 100 18 2.5\n9 7 4 1\n")
    monkeypatch.delitem(__import__("sys").modules, "my_reader", raising=False)
    return tmp_path / "event.txt"


def test_a_users_function_reads_any_file(foreign, tmp_path):
    flags = ("--reader", "my_reader:read", "--event-type", "Mu", "--index", 4, "--tpc", 5)
    assert run(foreign, "-o", tmp_path / "out", *flags) == 0
    with parsed.open_parsed(tmp_path / "out" / "reco_singleMu_004_wire-TPC5.h5") as wire:
        assert wire.event_ids.tolist() == [3, 9]
        assert [column.tolist() for column in wire.waveform(0)] == [[100, 200], [18, 17], [2.5, 5.5]]
        assert wire.n_ticks == 240
        assert wire.attributes["dead_channels"] == [5]
    with parsed.open_parsed(tmp_path / "out" / "reco_singleMu_004_depoElectron-TPC5.h5") as truth:
        assert truth.truth(1).coords.tolist() == [[7, 12, 7]]
    foreign.write_text("3 999 17 5.5\n")
    assert run(foreign, "-o", tmp_path / "out", *flags) == 1  # tick 999 of 240


@pytest.mark.parametrize(
    ("reader", "said"),
    [("my_reader:nothing", "has no 'nothing'"), ("no_such:read", "no module 'no_such'"),
     ("my_reader:product", "product 'wires'"), ("my_reader", "module:Name")],
)  # fmt: skip
def test_readers_that_do_not_exist_are_refused(foreign, tmp_path, reader, said):
    with pytest.raises(readers.ReaderError, match=said):
        run(foreign, "-o", tmp_path / "out", "--reader", reader)


def test_a_reader_that_yields_something_else_fails_the_file(foreign, tmp_path):
    assert run(foreign, "-o", tmp_path / "out", "--reader", "my_reader:wrong") == 1
    assert not list((tmp_path / "out").glob("*.h5"))


def objects(*events):
    out = np.empty(len(events), object)
    out[:] = events
    return out


def save(path, events):
    """As the original program saved them: one array per event, pickled where it is ragged."""
    np.savez_compressed(path, **{f"arr_{k}": event for k, event in enumerate(events)})
    return path


def ragged(*rows):
    out = np.empty(len(rows), object)
    for k, row in enumerate(rows):
        out[k] = row
    return out


POINTS = np.arange(12.0).reshape(2, 6)
CALO = [
    ragged(
        ["Track", 2, 120.5, POINTS],
        ["Shower", 0, 30.0, np.zeros((0, 6))],
        ["Track", 1, 1.0, POINTS[:1] + 100],
    ),
    ragged(["Shower", 1, 5.0, POINTS[1:]]),
]


def test_calorimetry_both_ways(tmp_path):
    source = save(tmp_path / "reco_BeamCosmic_001_calo-TPC1.npz", CALO)
    assert run(source, "-o", tmp_path / "refused") == 1
    assert run(source, "-o", tmp_path / "ours", "--allow-pickle") == 0
    path = tmp_path / "ours" / "reco_BeamCosmic_001_calo-TPC1.h5"
    with shards.Shard(path, parsed.CALO) as shard:
        first, points = shard.read(0, "objects"), shard.read(0, "points")
        assert first["shower"].tolist() == [0, 1, 0]
        assert first["plane"].tolist() == [2, 0, 1]
        assert first["kinetic_energy"].tolist() == [120.5, 30.0, 1.0]
        assert points["object"].tolist() == [0, 0, 2]
        np.testing.assert_array_equal(points["coords"][:2], POINTS[:, :3])
        np.testing.assert_array_equal(points["values"][:2], POINTS[:, 3:])
        digest = shard.digest
    assert run(path, "-o", tmp_path / "npz") == 0  # plain arrays: no pickle is needed to read them again
    assert run(tmp_path / "npz" / "reco_BeamCosmic_001_calo-TPC1.npz", "-o", tmp_path / "again") == 0
    with shards.Shard(tmp_path / "again" / path.name, parsed.CALO) as again:
        assert again.digest != "" and again.rows("points").tolist() == [3, 1]
        same = [
            (again.read(e, t), shards.Shard(path).read(e, t)) for e in (0, 1) for t in ("objects", "points")
        ]
        assert all(np.array_equal(a[k], b[k]) for a, b in same for k in a)
        assert digest


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (ragged(["Jet", 2, 1.0, POINTS]), "object 0: a Jet on plane 2"),
        (ragged(["Track", 2, 1.0, POINTS], ["Shower", 3, 1.0, POINTS]), "object 1: a Shower on plane 3"),
        (ragged(["Track", 2, 1.0, POINTS[:, :5]]), "calo table"),
    ],
)
def test_calorimetry_that_is_none_is_named(tmp_path, objects, said):
    source = save(tmp_path / "reco_BeamCosmic_001_calo-TPC1.npz", [CALO[0], objects])
    with pytest.raises(parsed.ParsedError, match="event 1 is no calo table") as error:
        import_npz(source, tmp_path / "calo.h5", {"generator": "test"}, allow_pickle=True)
    assert said in str(error.value)
    assert not (tmp_path / "calo.h5").exists()


def test_beam_and_cosmic_tracks(tmp_path):
    events = [ragged([1, 2], [7, 8, 9]), ragged([], [4])]
    source = save(tmp_path / "reco_BeamCosmic_002_mcbeamcosmic-TPC1.npz", events)
    assert run(source, "-o", tmp_path / "ours", "--allow-pickle") == 0
    path = tmp_path / "ours" / "reco_BeamCosmic_002_mcbeamcosmic-TPC1.h5"
    with shards.Shard(path, parsed.PARTICLES) as shard:
        assert shard.read(0, "particles")["track_id"].tolist() == [1, 2, 7, 8, 9]
        assert shard.read(0, "particles")["beam"].tolist() == [1, 1, 0, 0, 0]
        assert shard.read(1, "particles")["beam"].tolist() == [0]
    assert run(path, "-o", tmp_path / "npz") == 0
    assert run(tmp_path / "npz" / "reco_BeamCosmic_002_mcbeamcosmic-TPC1.npz", "-o", tmp_path / "again") == 0
    with shards.Shard(tmp_path / "again" / path.name) as again:
        assert again.read(0, "particles")["track_id"].tolist() == [1, 2, 7, 8, 9]


def test_trajectories_and_reference_points(tmp_path):
    rows = np.array([[5, 100, 1, 2, 3, 40, 50, 60], [6, 2, 0, 0, 0, 9, 9, 9.0]])
    source = save(tmp_path / "reco_BeamCosmic_003_mcparticle-TPC1.npz", [rows, np.zeros((0, 8))])
    assert run(source, "-o", tmp_path / "ours") == 0
    with shards.Shard(
        tmp_path / "ours" / "reco_BeamCosmic_003_mcparticle-TPC1.h5", parsed.TRAJECTORIES
    ) as shard:
        table = shard.read(0, "trajectories")
        assert table["end"].tolist() == [[40, 50, 60], [9, 9, 9]]
        assert shard.rows("trajectories").tolist() == [2, 0]
    source = save(tmp_path / "reco_BeamCosmic_003_spacepoint-TPC12.npz", [np.array([[1, 2, 3, 4.0]])])
    assert run(source, "-o", tmp_path / "ours") == 0
    with parsed.open_parsed(tmp_path / "ours" / "reco_BeamCosmic_003_spacepoint-TPC12.h5") as points:
        assert points.truth(0).values.tolist() == [[4]]
        assert points.attributes["tpcs"] == [1, 2]
    broken = save(tmp_path / "reco_BeamCosmic_004_mcparticle-TPC1.npz", [np.zeros((2, 7))])
    assert run(broken, "-o", tmp_path / "ours") == 1
