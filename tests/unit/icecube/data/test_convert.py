"""Other programs' files become the events they hold."""

from __future__ import annotations

import sqlite3

import h5py
import numpy as np
import pytest

from hpcreco import shards
from hpcreco.data.batch import collate
from hpcreco.experiments.icecube import arrays, checks, detector
from hpcreco.experiments.icecube.convert import ConvertError
from hpcreco.experiments.icecube.dataset import PulseReader
from hpcreco.experiments.icecube.imports import graphnet
from hpcreco.experiments.icecube.imports.events import ImportFileError, Options, label_name
from hpcreco.experiments.icecube.imports.tables import read as read_tables
from hpcreco.experiments.icecube.light import direction
from hpcreco.experiments.icecube.pulses import CASCADE
from hpcreco.experiments.icecube.reading import Reading

KEYS = [("Run", "u4"), ("Event", "u4"), ("SubEvent", "u4"), ("SubEventStream", "i4"), ("exists", "u1")]
DOM = [("string", "i4"), ("om", "u4")]


def table(keys, columns, dtypes):
    array = np.zeros(len(keys), KEYS + dtypes)
    for name, values in zip(
        [k for k, _ in KEYS], np.array([(*k, 1) for k in keys]).reshape(-1, 5).T, strict=True
    ):
        array[name] = values
    for name, values in columns.items():
        array[name] = values
    return array


def as_tables(source, path, doms_per_string, first_exists=1):
    """A simulated shard in the original package's layout."""
    collected = {name: [] for name in ("pulses", "gaps", "excluded", "labels", "seeds")}
    with shards.Shard(source) as shard:
        for number in range(shard.n_events):
            key = (shard.attributes["seed"], number, 0, 6)
            for name in ("pulses", "gaps", "excluded"):
                rows = shard.read(number, name)
                dom = rows.pop("dom")
                rows |= {"string": dom // doms_per_string + 1, "om": dom % doms_per_string + 1}
                collected[name].append((key, rows, len(dom)))
            event = shard.read(number, "event")["parameters"][0].astype(float)
            collected["labels"].append((key, dict(zip(CASCADE, event, strict=True)), 1))
            seed = shard.read(number, "seeds")["values"][0].astype(float)
            collected["seeds"].append((key, dict(zip(CASCADE, seed, strict=True)), 1))

    def joined(name, renamed, dtypes):
        keys = [key for key, _, n in collected[name] for _ in range(n)]
        columns = {
            theirs: np.concatenate([np.atleast_1d(rows[ours]) for _, rows, _ in collected[name]])
            for ours, theirs in renamed.items()
        }
        return table(keys, columns, dtypes)

    where = {"string": "string", "om": "om"}
    reco = [*DOM, ("time", "f8"), ("width", "f8"), ("charge", "f8")]
    labels = {name: f"cascade_{'t' if name == 'time' else name}" for name in CASCADE}
    with h5py.File(path, "w") as file:
        file["SplitPulses"] = joined("pulses", {**where, "time": "time", "charge": "charge"}, reco)
        file["BadTimeWindowsHDF5"] = joined("gaps", {**where, "start": "time", "stop": "width"}, reco)
        file["BadDOMs"] = joined("excluded", where, DOM)
        file["LabelsDeepLearning"] = joined("labels", labels, [(name, "f8") for name in labels.values()])
        file["LabelsDeepLearning"][0, "exists"] = first_exists
        file["Seed"] = joined("seeds", {name: name for name in CASCADE}, [(name, "f8") for name in CASCADE])
        file.create_group("__I3Index__")


@pytest.fixture
def original(sample, tmp_path):
    path = tmp_path / "in" / "events.hdf5"
    path.parent.mkdir()
    as_tables(sample / "pulses-00000.h5", path, 10)
    return path


def only(folder):
    (path,) = folder.glob("pulses-*.h5")
    return path


def test_tables_give_the_batches_that_the_native_shard_gives(run_convert, original, sample, tmp_path):
    arguments = ("--detector", "hex7x10", "--window", 5000, 17000, "--out", tmp_path / "out")
    assert run_convert(original, *arguments) == 0
    native, imported = shards.Shard(sample / "pulses-00000.h5"), shards.Shard(only(tmp_path / "out"))
    assert checks.problems(imported.path) == [] and imported.n_events == native.n_events == 20
    assert imported.attributes["removed_pulses"] == 0 and imported.attributes["duplicate_rows"] == 0
    assert imported.columns("event", "parameters") == native.columns("event", "parameters")

    def batch(shard, seed):
        reader = PulseReader(Reading(seeds=(seed,)))
        return collate([reader(shard, number, np.random.default_rng()) for number in range(shard.n_events)])

    one, other = batch(native, "smeared"), batch(imported, "Seed")
    assert one["gaps/start"].numel() > 20
    for key in one.tensors:
        assert np.array_equal(one[key].numpy(), other[key.replace("smeared", "Seed")].numpy()), key
    for table_name, offsets in one.offsets.items():
        assert offsets.tolist() == other.offsets[table_name].tolist()
    native.close(), imported.close()


def test_pulses_in_dead_time_are_removed_and_counted(run_convert, original, tmp_path):
    with h5py.File(original, "r+") as file:
        gap = file["BadTimeWindowsHDF5"][0]
        pulses = file["SplitPulses"][:]
        extra = pulses[:1].copy()
        for name in ("Run", "Event", "SubEvent", "SubEventStream", "string", "om"):
            extra[name] = gap[name]
        extra["time"], extra["charge"] = (gap["time"] + gap["width"]) / 2, 1.0
        del file["SplitPulses"]
        file["SplitPulses"] = np.concatenate([pulses, extra, pulses[5:7]])
    assert run_convert(original, "--detector", "hex7x10", "--out", tmp_path / "out") == 0
    with shards.Shard(only(tmp_path / "out")) as shard:
        assert shard.attributes["removed_pulses"] == 1 and shard.attributes["duplicate_rows"] == 2
        assert shard.rows("pulses").sum() == len(pulses)
    assert run_convert(original, "--detector", "hex7x10", "--out", tmp_path / "out", "--keep-duplicates") == 0
    with shards.Shard(only(tmp_path / "out")) as shard:
        assert shard.rows("pulses").sum() == len(pulses) + 2


def test_events_without_truth_are_dropped_and_reported(run_convert, sample, tmp_path, capsys):
    as_tables(sample / "pulses-00000.h5", tmp_path / "a.hdf5", 10, first_exists=0)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        labels = file["LabelsDeepLearning"][:]
        labels["exists"][0] = 0
        file["LabelsDeepLearning"][...] = labels
    assert run_convert(tmp_path / "a.hdf5", "--detector", "hex7x10", "--out", tmp_path / "out") == 0
    assert "1 event(s) without truth dropped" in capsys.readouterr().out
    with shards.Shard(only(tmp_path / "out")) as shard:
        assert shard.n_events == 19
    options = ("--label-key", "", "--seed-keys", "--out", tmp_path / "out")
    assert run_convert(tmp_path / "a.hdf5", "--detector", "hex7x10", *options) == 0
    with shards.Shard(only(tmp_path / "out")) as shard:
        assert shard.n_events == 20 and not shard.has("event", "parameters") and not shard.has("seeds")


def test_what_is_wrong_is_named(run_convert, original, tmp_path):
    array = arrays.named("hex7x10")
    with pytest.raises(ImportFileError, match="no table 'Other'.*it has BadDOMs"):
        read_tables(original, array, Options(pulses="Other"))
    with pytest.raises(ImportFileError, match="is not in the detector of 7 x 4 DOMs"):
        read_tables(original, arrays.named("hex7x4"), Options())
    with h5py.File(original, "r+") as file:
        file["MorePulses"] = file["SplitPulses"][:3]
        wrong = file["BadTimeWindowsHDF5"][:]
        wrong["width"] -= wrong["time"]
        file["BadTimeWindowsHDF5"][...] = wrong
    with pytest.raises(
        ImportFileError, match="several tables of pulses: MorePulses, SplitPulses.*--pulse-key"
    ):
        read_tables(original, array, Options())
    with pytest.raises(ImportFileError, match="should hold the end of a window, not its length"):
        read_tables(original, array, Options(pulses="SplitPulses"))
    assert run_convert(original, "--out", tmp_path / "o") == 1  # no detector: the file fails, by name
    with pytest.raises(ConvertError, match="start should come first"):
        run_convert(original, "--out", tmp_path / "o", "--window", 2, 1)
    with pytest.raises(ConvertError, match="no such file"):
        run_convert(tmp_path / "none.txt", "--out", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConvertError, match="nothing to convert"):
        run_convert(tmp_path / "empty", "--out", tmp_path / "o")


def test_a_converted_file_is_kept_until_an_option_changes(run_convert, original, tmp_path, capsys):
    arguments = (original, "--detector", "hex7x10", "--out", tmp_path / "out")
    assert run_convert(*arguments) == 0
    capsys.readouterr()
    assert run_convert(*arguments) == 0 and "done" not in capsys.readouterr().out.replace("0 done", "")
    assert run_convert(*arguments, "--buffer", 7) == 0 and "1 done" in capsys.readouterr().out


def test_names_of_labels():
    assert label_name("cascade_t") == "cascade_time"
    assert label_name("cascade_x") == "cascade_x"
    assert label_name("cascade_00001_energy") == "cascade_cascade_00001_energy"


# ------------------------------------------------------------------------------------------ text, sqlite, parquet


def test_text_with_every_row_twice(run_convert, tmp_path, capsys):
    rows = [(100.5, 1.25, 2, 1, 0.1), (90.0, 300.0, 10, 7, 0.2), (95.0, 0.5, 2, 1, 0.3)]
    lines = [",".join(map(str, row)) for row in rows for _ in range(2)]
    (tmp_path / "event.txt").write_text("\n".join(lines))
    options = ("--detector", "hex7x10", "--exclude-bright", "--out", tmp_path / "out")
    assert run_convert(tmp_path / "event.txt", *options) == 0
    assert "3 rows occur more than once; dropped" in capsys.readouterr().out
    with shards.Shard(only(tmp_path / "out")) as shard:
        pulses = shard.read(0, "pulses")
        assert pulses["dom"].tolist() == [1, 1, 69] and pulses["time"].tolist() == [95.0, 100.5, 90.0]
        assert shard.read(0, "event")["window"].tolist() == [[-10.0, 200.5]]
        assert 69 in shard.read(0, "excluded")["dom"]
        assert shard.attributes["duplicate_rows"] == 3
    (tmp_path / "bad.txt").write_text("time charge\n1,2\n")
    assert run_convert(tmp_path / "bad.txt", *options) == 1


def regular_array(path, strings=4, doms=6, skip=()):
    """A Prometheus sqlite file of an array with sensors numbered through; one photon on each but `skip`."""
    columns = "sensor_id, sensor_pos_x, sensor_pos_y, sensor_pos_z, sensor_string_id, t, event_no"
    names = ("energy", "zenith", "azimuth", "position_x", "position_y", "position_z")
    truth = ", ".join((*(f"injection_{name}" for name in names), "event_no"))
    connection = sqlite3.connect(path)
    connection.execute(f"create table total ({columns})")
    connection.execute(f"create table mc_truth ({truth})")
    for sensor in range(strings * doms):
        if sensor not in skip:
            s, k = divmod(sensor, doms)
            row = (sensor, 30.0 * s, -5.0 * s * s, 9.0 * k - 20.0, s, 50.0 + sensor, 8)
            connection.execute("insert into total values (?,?,?,?,?,?,?)", row)
    connection.execute("insert into mc_truth values (12.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8)")
    connection.execute("insert into mc_truth values (13.5, 1.0, 2.0, 3.0, 4.0, 5.0, 9)")
    connection.commit()
    connection.close()


def test_an_array_of_any_size_is_found_from_its_sensors(run_convert, tmp_path):
    regular_array(tmp_path / "small.db", skip=(0, 5, 11, 23))
    assert run_convert(tmp_path / "small.db", "--out", tmp_path / "out") == 0
    path = only(tmp_path / "out")
    with shards.Shard(path) as shard:
        array = detector.beside(path, shard.attributes["detector_sha256"])
        assert array.shape == (4, 6) and not array.dead.any()
        assert np.allclose(array.positions[3, :, 2], 9.0 * np.arange(6) - 20.0)
        assert np.allclose(array.positions[2, 0, :2], [60.0, -20.0])
        assert shard.rows("pulses").tolist() == [20, 0]  # an event without light is an event
        assert shard.read(0, "pulses")["dom"].tolist() == [i for i in range(24) if i not in (0, 5, 11, 23)]
        assert shard.read(0, "event")["parameters"].tolist() == [[3.0, 4.0, 5.0, 1.0, 2.0, 12.5, 0.0]]
    assert checks.problems(path) == []


def test_sensors_that_do_not_fit_ask_for_a_geometry(run_convert, tmp_path, capsys):
    regular_array(tmp_path / "small.db", skip=range(6, 12))  # a string without any photon
    assert run_convert(tmp_path / "small.db", "--out", tmp_path / "out") == 1
    assert "give the geometry with --detector" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ public files


@pytest.fixture(scope="session")
def icecube(public_data):
    return public_data / "icecube"


@pytest.fixture(scope="session")
def real_array(icecube):
    return f"{icecube / 'geometry' / 'detector_config.txt'},{icecube / 'geometry' / 'icecube86.parquet'}"


def converted(run_convert, source, out, *options):
    assert run_convert(source, "--out", out, *options) == 0
    path = only(out)
    assert checks.problems(path) == []
    return shards.Shard(path)


def test_simulated_cascades_of_the_original_package(run_convert, icecube, real_array, tmp_path):
    (source,) = (icecube / "cascade-sim").glob("*.hdf5")
    with converted(run_convert, source, tmp_path, "--detector", real_array) as shard:
        assert shard.rows("pulses").tolist() == [1022, 415]
        pulses = [shard.read(number, "pulses") for number in range(2)]
        assert [len(np.unique(p["dom"])) for p in pulses] == [333, 179]
        assert [p["charge"].sum() for p in pulses] == pytest.approx([1080.05, 668.425], rel=1e-5)
        event = shard.read_events(0, 2, "event")
        assert event["ids"].tolist() == [[4000, 21216, 0, 6], [4000, 21334, 0, 6]]
        truth = dict(zip(shard.columns("event", "parameters"), event["parameters"].T, strict=True))
        assert truth["cascade_energy"].tolist() == pytest.approx([2360.9, 924.725], rel=1e-5)
        assert truth["cascade_z"].tolist() == pytest.approx([-322.019, -426.513], abs=1e-3)
        assert truth["cascade_time"].tolist() == pytest.approx([9663.551, 9789.881], abs=1e-2)
        seed = dict(zip(shard.columns("seeds", "values"), shard.read(0, "seeds")["values"][0], strict=True))
        assert seed["MonopodFit4_PartialExclusion/energy"] == pytest.approx(2631.87, rel=1e-5)
        bright = [(25, 47), (25, 48), (25, 49)]
        assert {s * 60 + d for s, d in bright} <= set(shard.read(0, "excluded")["dom"].tolist())
        assert shard.rows("excluded").tolist() == [82, 82]  # 79 dead and three bright ones


@pytest.mark.parametrize(
    ("name", "rows", "charge", "doms", "twice"),
    [("Ernie", 9347, 1.13779e5, 333, 0), ("Hydrangea", 18140, 2.21582e5, None, 18140)],
)
def test_real_showers(run_convert, icecube, real_array, tmp_path, name, rows, charge, doms, twice):
    source = icecube / "real-events" / f"{name}.txt"
    with converted(run_convert, source, tmp_path, "--detector", real_array) as shard:
        pulses = shard.read(0, "pulses")
        assert len(pulses["time"]) == rows and pulses["charge"].sum(dtype=float) == pytest.approx(
            charge, rel=1e-4
        )
        assert doms is None or len(np.unique(pulses["dom"])) == doms
        assert shard.attributes["duplicate_rows"] == twice and not shard.has("event", "parameters")


def test_low_energy_events_of_graphnet(run_convert, icecube, real_array, tmp_path):
    (source,) = (icecube / "graphnet").glob("*.db")
    with converted(run_convert, source, tmp_path, "--detector", real_array) as shard:
        assert shard.n_events == 5 and shard.rows("pulses").sum() == 56
        first = dict(
            zip(shard.columns("event", "parameters"), shard.read(0, "event")["parameters"][0], strict=True)
        )
        assert first["cascade_energy"] == pytest.approx(1.510082) and first["cascade_z"] == pytest.approx(
            -480.864
        )
        assert "cascade_time" not in first
    with pytest.raises(ImportFileError, match="m away from where the detector has them"):
        graphnet.read(source, arrays.named("hex86"), Options())


def test_prometheus_photons_on_the_real_array(run_convert, icecube, real_array, tmp_path):
    (source,) = (icecube / "prometheus").glob("*.parquet")
    with converted(run_convert, source, tmp_path, "--detector", real_array) as shard:
        assert shard.rows("pulses").tolist() == [54550, 193, 1157, 6783, 2163]
        truth = shard.read(0, "event")["parameters"][0]
        assert truth[2] == pytest.approx(-1957.6167 + 1948.07, abs=0.01)  # moved with the sensors
        assert truth[3] == pytest.approx(np.pi - 2.1464365) and truth[5] == pytest.approx(248199.07)
        array = detector.beside(shard.path, shard.attributes["detector_sha256"])
        pulses = shard.read(0, "pulses")
        r = np.linalg.norm(array.flat_positions[pulses["dom"]] - truth[:3], axis=1)
        assert (pulses["time"] - truth[6] - r / 0.2998).min() > -0.5  # no photon faster than light


def test_a_small_array_that_is_not_icecube(run_convert, icecube, tmp_path):
    (source,) = (icecube / "prometheus").glob("*.db")
    with converted(run_convert, source, tmp_path) as shard:
        assert shard.n_events == 30 and shard.rows("pulses").sum() == 1079
        array = detector.beside(shard.path, shard.attributes["detector_sha256"])
        assert array.shape == (43, 22) and array.radius < 60.0
        truth = shard.read_events(0, 30, "event")["parameters"]
        assert truth[:, 5].min() > 10.0 and truth[:, 5].max() < 139.0
        toward = []
        for number in range(30):
            centre = (
                array.flat_positions[shard.read(number, "pulses")["dom"]].mean(axis=0) - truth[number, :3]
            )
            toward.append(centre @ direction(*truth[number, 3:5]) / np.linalg.norm(centre))
        assert np.mean(toward) > 0.3  # muons fly from their vertex, outside, into the array
