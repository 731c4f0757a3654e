"""The verb tile on small parsed files: what it writes, what it skips, what it refuses."""

import argparse
import json
import logging

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, labels, parsed, tile
from hpcreco.experiments.protodune.channel_list import channel_list
from hpcreco.experiments.protodune.parsed.npz import dense_waveform, write_npz
from hpcreco.experiments.protodune.tiling.tiler import Tiler
from hpcreco.experiments.protodune.xy import PIXEL, XY

TPC, N_TICKS = 2, 64
FACE = geometry.load().face(TPC)


def event(seed):
    """A short straight track: its samples and its truth."""
    rng = np.random.default_rng(seed)
    start, slope = rng.uniform((10, 500, 500), (20, 5000, 1500)), rng.uniform((0.02, -1, -1), (0.06, 1, 1))
    points = start + np.arange(0, 300, 0.5)[:, None] * slope / np.linalg.norm(slope[1:])
    tick = points[:, 0].astype(int)
    cells = []
    for plane in FACE.planes:
        wire = plane.nearest(points[:, 2], points[:, 1])
        cells.append(np.stack([tick[wire >= 0], plane.channels[wire[wire >= 0]]], 1))
    at, counts = np.unique(np.concatenate(cells), axis=0, return_counts=True)
    voxels, n = np.unique(
        np.stack([tick, points[:, 1] // 2, points[:, 2] // 2], 1).astype(int), axis=0, return_counts=True
    )
    return at[:, 0], at[:, 1], 3100.0 * counts, voxels, 1.05 * n


def attributes(index, product, **more):
    shared = {"event_type": "Electron", "index": index, "product": product, "tpc": TPC, "geometry": "pdsp"}
    return shared | {"geometry_digest": geometry.load().digest, "generator": "test"} | more


def write_wire(folder, index, n_events=5, npz=False, without=(), **more):
    events = [event(1000 * index + e) for e in range(n_events)]
    if npz:
        dense = [dense_waveform(parsed.Waveforms(*e[:3]), N_TICKS, 2560) for e in events]
        return write_npz(folder / f"reco_singleElectron_{index:03d}_wire-TPC{TPC}.npz", dense)
    path = folder / f"reco_singleElectron_{index:03d}_wire-TPC{TPC}.h5"
    with parsed.wire_writer(
        path, attributes(index, "wire", n_ticks=N_TICKS, n_channels=2560, **more)
    ) as writer:
        for number, (tick, channel, value, _, _) in enumerate(events):
            seen = ~np.isin(channel, without)
            parsed.append_waveform(writer, number, tick[seen], channel[seen], value[seen])
    return path


def write_truth(folder, index, product="depo", n_events=5, scale=1.0):
    path = folder / f"reco_singleElectron_{index:03d}_{product}-TPC{TPC}.h5"
    with parsed.truth_writer(path, attributes(index, product)) as writer:
        for number in range(n_events):
            _, _, _, voxels, value = event(1000 * index + number)
            ids = np.full(len(value), 7)
            parsed.append_truth(writer, number, voxels, scale * value, ids, ids + 4)
    return path


@pytest.fixture(autouse=True)
def no_base_dir(monkeypatch):
    monkeypatch.delenv("BASE_DIR", raising=False)


@pytest.fixture
def folder(tmp_path):
    """Two groups with truth."""
    source = tmp_path / "parsed"
    source.mkdir()
    for index in (1, 2):
        write_wire(source, index)
        write_truth(source, index)
    return source


def run(source, output, *flags):
    parser = argparse.ArgumentParser()
    tile.add_arguments(parser)
    return tile.run(
        parser.parse_args(["-i", str(source), "-o", str(output), "-t", str(TPC), "-n", "1", *flags])
    )


def files(output):
    return sorted(output.glob("*.h5"))


def digests(output):
    return {path.name: shards.Shard(path).digest for path in files(output)}


def rows(output):
    """All events of a folder, {(index, event id): tables}, whatever files they are in."""
    found = {}
    for path in files(output):
        with shards.Shard(path, XY) as shard:
            for number, event_id in enumerate(shard.event_ids):
                tables = {t: shard.read(number, t) for t in shard.tables if t != "events"}
                found[shard.attributes["index"], int(event_id)] = tables
    return found


def assert_same_rows(a, b, but=()):
    assert a.keys() == b.keys()
    for key in a:
        for table in set(a[key]) - set(but):
            for field, values in a[key][table].items():
                np.testing.assert_array_equal(values, b[key][table][field])


def reports(output):
    return json.loads((output / f"tile-TPC{TPC}.json").read_text())


def statuses(output):
    return [job["status"] for job in reports(output)["jobs"]]


def test_shards_hold_the_tiles_the_labels_and_the_truth(folder, tmp_path):
    assert run(folder, tmp_path / "xy") == 0
    assert [p.name for p in files(tmp_path / "xy")] == [
        f"batch0-reco_singleElectron_00{i}_xy-TPC{TPC}.h5" for i in (1, 2)
    ]
    tiler = Tiler(FACE, n_ticks=N_TICKS)
    for path in files(tmp_path / "xy"):
        assert shards.validate(path, XY) == []
        with shards.Shard(path, XY) as shard:
            about = shard.attributes
            assert (about["n_batches"], about["tpc"], about["y_type"], about["y_unit"]) == (
                1,
                [TPC],
                "depo",
                "MeV",
            )
            assert about["feature_names"] == list(shard.columns("voxels", "features")) == ["V", "X", "U"]
            assert about["spatial_shape"] == [8, 748, 288]
            for number in range(shard.n_events):
                tick, channel, value, voxels, energy = event(1000 * about["index"] + number)
                tiles = tiler.tile(tick, channel, np.float32(value))
                truth = labels.coarse(voxels, np.float32(energy)[:, None], (8, 4, 4))
                got = shard.read(number, "voxels")
                np.testing.assert_array_equal(got["coords"], tiles.coords)
                np.testing.assert_array_equal(got["features"], tiles.features)
                np.testing.assert_array_equal(got["labels"], labels.label(tiles.coords, truth))
                assert got["labels"].sum() == pytest.approx(energy.sum(), rel=1e-5)
                all_true = shard.read(number, "truth")
                np.testing.assert_array_equal(all_true["coords"], truth.coords)
                assert (all_true["track_id"] == 7).all()
                assert (all_true["pdg"] == 11).all()
                assert shard.read(number, "tiling")["missed"].tolist() == [0]


def test_finished_files_are_left_alone_and_broken_or_stale_ones_made_again(folder, tmp_path, capsys):
    output = tmp_path / "xy"
    run(folder, output, "-b", "2")
    assert len(files(output)) == 6
    before = {path: path.stat().st_mtime_ns for path in files(output)}
    assert run(folder, output, "-b", "2") == 0
    assert statuses(output) == ["skipped"] * 6
    broken = files(output)[2]
    broken.write_bytes(broken.read_bytes()[:2000])
    files(output)[4].unlink()
    assert run(folder, output, "-b", "2") == 0
    assert sorted(statuses(output)) == ["done"] * 2 + ["skipped"] * 4
    changed = {path for path in files(output) if path.stat().st_mtime_ns != before[path]}
    assert broken in changed
    assert len(changed) == 2
    write_truth(folder, 1, scale=2.0)  # new truth for one group
    assert run(folder, output, "-b", "2", "--dry-run") == 0
    assert "truth changed" in capsys.readouterr().out
    assert run(folder, output, "-b", "2") == 0
    assert sorted(statuses(output)) == ["done"] * 3 + ["skipped"] * 3
    assert run(folder, output, "-b", "2", "--threshold", "5") == 0
    assert statuses(output) == ["done"] * 6
    assert all("threshold" in job["reason"] for job in reports(output)["jobs"])


def test_batches_threads_and_engines_do_not_change_a_row(folder, tmp_path):
    run(folder, tmp_path / "whole")
    whole = rows(tmp_path / "whole")
    for size, n_files in ((1, 10), (2, 6), (3, 4), (5, 2)):
        output = tmp_path / f"b{size}"
        assert run(folder, output, "-b", str(size)) == 0
        assert len(files(output)) == n_files
        assert_same_rows(whole, rows(output))
    run(folder, tmp_path / "threads", "-n", "3")
    assert digests(tmp_path / "threads") == digests(tmp_path / "whole")


@pytest.mark.mpi
def test_ranks_do_not_change_a_file(folder, tmp_path, mpiexec):
    run(folder, tmp_path / "one", "-b", "1")
    command = ["-m", "hpcreco", "tile", "-i", folder, "-o", tmp_path / "two", "-t", TPC, "-b", 1, "-n", 1]
    mpiexec(2, [*command, "--schedule", "dynamic"])
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    assert len({job["worker"] for job in reports(tmp_path / "two")["jobs"]}) == 2


def test_another_batch_size_leaves_no_old_file_behind(folder, tmp_path, caplog):
    output = tmp_path / "xy"
    run(folder, output, "-b", "1")
    other = output / f"batch3-reco_singleElectron_009_xy-TPC{TPC}.h5"
    other.write_bytes(b"not ours")
    with caplog.at_level(logging.WARNING, logger="hpcreco"):
        assert run(folder, output, "-b", "3") == 0
    assert len(files(output)) == 4 + 1
    assert other.exists()
    assert "left over" in caplog.text
    assert len(rows(output) if not other.unlink() else ()) == 10


def test_a_group_without_truth_fails_alone(folder, tmp_path):
    write_wire(folder, 3)
    assert run(folder, tmp_path / "xy") == 1
    assert len(files(tmp_path / "xy")) == 2
    failed = [job for job in reports(tmp_path / "xy")["jobs"] if job["status"] == "failed"]
    assert len(failed) == 1
    assert "no energy or depo or depoElectron file" in failed[0]["error"]
    assert "003_wire" in failed[0]["error"]


def test_unequal_event_counts_name_both_files(folder, tmp_path):
    wire, truth = write_wire(folder, 3), write_truth(folder, 3, n_events=4)
    assert run(folder, tmp_path / "xy") == 1
    (failed,) = [job for job in reports(tmp_path / "xy")["jobs"] if job["status"] == "failed"]
    assert str(wire) in failed["error"]
    assert str(truth) in failed["error"]


def test_a_truncated_input_fails_alone(folder, tmp_path):
    wire = write_wire(folder, 3)
    write_truth(folder, 3)
    wire.write_bytes(wire.read_bytes()[:3000])
    assert run(folder, tmp_path / "xy") == 1
    assert sorted(statuses(tmp_path / "xy")) == ["done", "done", "failed"]


def test_truth_type_is_the_first_found_in_the_order_asked_for(folder, tmp_path):
    write_truth(folder, 1, product="depoElectron", scale=1e4)
    run(folder, tmp_path / "default")
    run(folder, tmp_path / "electrons", "--y-type", "depoElectron,depo")
    found = {}
    for name in ("default", "electrons"):
        for path in files(tmp_path / name):
            with shards.Shard(path, XY) as shard:
                found[name, shard.attributes["index"]] = (
                    shard.attributes["y_type"],
                    shard.columns("voxels", "labels"),
                )
    assert found["default", 1] == ("depo", ("energy",))
    assert found["electrons", 1] == ("depoElectron", ("electrons",))
    assert found["electrons", 2] == ("depo", ("energy",))


def test_data_without_truth(folder, tmp_path):
    assert run(folder, tmp_path / "xy", "--y-type", "none", "--index-range", "2", "9") == 0
    (path,) = files(tmp_path / "xy")
    assert shards.validate(path, XY) == []
    with shards.Shard(path, XY) as shard:
        assert not shard.has("truth")
        assert not shard.has("voxels", "labels")
        assert (shard.attributes["y_type"], shard.attributes["index"]) == ("", 2)


def test_empty_events_keep_their_slot(tmp_path):
    path = tmp_path / f"reco_singleElectron_001_wire-TPC{TPC}.h5"
    tick, channel, value, _, _ = event(3)
    with parsed.wire_writer(path, attributes(1, "wire", n_ticks=N_TICKS, n_channels=2560)) as writer:
        parsed.append_waveform(writer, 0, [], [], [])
        parsed.append_waveform(writer, 1, tick, channel, value)
    assert run(tmp_path, tmp_path / "xy", "--y-type", "none") == 0
    with shards.Shard(files(tmp_path / "xy")[0], XY) as shard:
        assert shard.rows("voxels")[0] == 0
        assert shard.rows("voxels")[1] > 0


def test_legacy_npz_gives_the_same_rows(folder, tmp_path):
    run(folder, tmp_path / "h5", "--y-type", "none", "--index-range", "1", "1")
    legacy = tmp_path / "npz"
    legacy.mkdir()
    write_wire(legacy, 1, npz=True)
    assert run(legacy, tmp_path / "xy", "--y-type", "none") == 0
    assert_same_rows(rows(tmp_path / "xy"), rows(tmp_path / "h5"))
    assert run(legacy, tmp_path / "xy", "--y-type", "none") == 0
    assert statuses(tmp_path / "xy") == ["skipped"]


def test_dead_channels_from_a_list_a_file_or_the_input(tmp_path):
    source = tmp_path / "parsed"
    source.mkdir()
    _, channel, *_ = event(1000)
    dead = sorted({int(c) for c in channel if c >= 1600})[:3]
    write_wire(source, 1, without=dead, dead_channels=dead)
    listed = tmp_path / "dead.txt"
    listed.write_text("# bad ones\n" + "\n".join(map(str, dead)))
    for name, flag in (
        ("none", "none"),
        ("list", ",".join(map(str, dead))),
        ("file", str(listed)),
        ("rec", "recorded"),
    ):
        assert run(source, tmp_path / name, "--y-type", "none", "--dead-channels", flag) == 0
    assert digests(tmp_path / "list") == digests(tmp_path / "file") == digests(tmp_path / "rec")
    live, with_dead = rows(tmp_path / "none"), rows(tmp_path / "list")
    assert any(len(with_dead[k]["voxels"]["coords"]) > len(live[k]["voxels"]["coords"]) for k in live)
    with shards.Shard(files(tmp_path / "rec")[0]) as shard:
        assert shard.attributes["dead_channels"] == dead
    assert channel_list("12,40-42") == (12, 40, 41, 42)


def test_saved_pixels_sum_to_the_cells(folder, tmp_path):
    flags = ("--save-pixel", "--index-range", "1", "1")
    assert run(folder, tmp_path / "xy", *flags) == 0
    pixel = folder / f"batch0-reco_singleElectron_001_pixel-TPC{TPC}.h5"
    assert shards.validate(pixel, PIXEL) == []
    with shards.Shard(pixel, PIXEL) as fine, shards.Shard(files(tmp_path / "xy")[0], XY) as coarse:
        for number in range(coarse.n_events):
            f, c = fine.read(number, "voxels"), coarse.read(number, "voxels")
            cells, at = np.unique(f["coords"] // [8, 4, 4], axis=0, return_inverse=True)
            sums = np.zeros((len(cells), 3))
            np.add.at(sums, at.reshape(-1), f["features"])
            np.testing.assert_array_equal(cells, c["coords"])
            np.testing.assert_allclose(sums, c["features"], rtol=1e-5, atol=1e-2)
            assert coarse.read(number, "tiling")["fine_voxels"].tolist() == [len(f["coords"])]
    assert run(folder, tmp_path / "xy", *flags) == 0
    assert statuses(tmp_path / "xy") == ["skipped"]


def test_downsample_of_one_is_the_identity(folder, tmp_path):
    run(folder, tmp_path / "xy", "--downsample", "1,1,1", "--index-range", "1", "1")
    tiler = Tiler(FACE, n_ticks=N_TICKS)
    for (_, number), tables in rows(tmp_path / "xy").items():
        tick, channel, value, voxels, energy = event(1000 + number)
        assert len(tables["voxels"]["coords"]) == tiler.tile(tick, channel, np.float32(value)).pixels
        np.testing.assert_array_equal(tables["truth"]["coords"], voxels)
        np.testing.assert_allclose(tables["truth"]["values"][:, 0], energy, rtol=1e-6)


def test_base_dir_holds_relative_outputs(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("BASE_DIR", str(tmp_path / "base"))
    assert run(folder, "xy", "--dry-run") == 0
    assert not (tmp_path / "base").exists()
    assert run(folder, "xy") == 0
    assert len(files(tmp_path / "base" / "xy")) == 2
    assert tile.output_folder(tmp_path / "xy") == tmp_path / "xy"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--downsample", "8,4"), "three whole numbers"),
        (("--downsample", "7,4,4"), None),
        (("--y-type", "depos"), "no such product"),
        (("-b", "0"), "at least one event"),
        (("--dead-channels", "nowhere.txt"), "neither a channel"),
        (("--geometry", "icarus"), "unknown geometry"),
        (("--index-range", "7", "9"), r"index in \[7, 9\]"),
        (("-t", "12"), "no TPC 12"),
    ],
)
def test_wrong_options_are_explained(folder, tmp_path, flags, says):
    if says is None:  # only the input tells that it does not fit
        assert run(folder, tmp_path / "xy", *flags) == 1
        assert "must divide the 64 ticks" in reports(tmp_path / "xy")["jobs"][0]["error"]
        return
    with pytest.raises(ValueError, match=says) as caught:
        run(folder, tmp_path / "xy", *flags)
    assert caught.value.exit_code == 2


def test_a_missing_input_folder_is_named(tmp_path):
    with pytest.raises(tile.TileUsageError, match="nowhere"):
        run(tmp_path / "nowhere", tmp_path / "xy")
