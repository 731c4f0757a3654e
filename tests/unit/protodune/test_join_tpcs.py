"""The verb join-tpcs: where voxels go, what is summed, what is skipped and refused."""

import argparse
import json
import logging

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import dialect, geometry, join_tpcs, legacy, names, parsed
from hpcreco.experiments.protodune import labels as truth_on_cells
from hpcreco.experiments.protodune.dataset import DataError, XYReader
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE
from hpcreco.experiments.protodune.parsed.npz import write_npz
from hpcreco.experiments.protodune.xy import XY

PDSP = geometry.load()
COARSE = [v * d for v, d in zip(VOXEL_SIZE, (8, 4, 4), strict=True)]
SHAPE = [750, 748, 288]


def image(seed, n=60):
    """Unique sorted cells with features, labels, and truth that holds those labels and five cells more."""
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(0, SHAPE, (n + 5, 3)), axis=0).astype(np.int32)
    charge = rng.uniform(1, 1e4, len(cells)).astype(np.float32)
    coords = np.delete(cells, slice(None, None, 13), axis=0)
    labels = np.delete(charge, slice(None, None, 13))
    return {
        "voxels": {
            "coords": coords,
            "features": rng.uniform(0, 1e4, (len(coords), 3)).astype(np.float32),
            "labels": labels[:, None],
        },
        "truth": {
            "coords": cells,
            "values": charge[:, None],
            "track_id": np.arange(len(cells), dtype=np.int32),
            "pdg": np.full(len(cells), 13, np.int32),
        },
        "tiling": {"lost_charge": np.array([1.0, 2.0, 3.0]), "fine_voxels": n, "missed": 5},
    }


def write_xy(folder, tpc, events, index=1, labels=True, ids=None, coarser=None, **changes):
    face = PDSP.face(tpc)
    attributes = {
        "event_type": "BeamCosmic", "index": index, "batch": 0, "n_batches": 1, "tpc": [tpc],
        "downsample": [8, 4, 4], "voxel_size_mm": COARSE, "frame_origin_mm": list(face.r_min),
        "spatial_shape": SHAPE, "feature_names": list(face.feature_names), "x_type": "wire",
        "y_type": "depoElectron" if labels else "", "y_unit": "electrons", "tiling_threshold": 1e-3,
        "active_none": True, "clip_negative": False, "legacy_rounding": False, "dead_channels": [3],
        "tiling_version": 1, "geometry": "pdsp", "geometry_digest": PDSP.digest, "source_digests": [],
        "source_files": [],
    } | changes  # fmt: skip
    columns = {"voxels/features": face.feature_names, "tiling/lost_charge": face.feature_names}
    if labels:
        columns |= {"voxels/labels": ("electrons",), "truth/values": ("electrons",)}
    if coarser:
        columns["coarser/values"] = ("electrons",)
        attributes["downsample_y"] = coarser
    path = folder / f"batch0-reco_BeamCosmic_{index:03d}_xy-TPC{tpc}.h5"
    with shards.ShardWriter(path, XY, attributes, columns) as writer:
        for number, event in zip(ids or range(len(events)), events, strict=True):
            tables = {name: dict(rows) for name, rows in event.items()}
            if not labels:
                tables.pop("truth")
                tables["voxels"].pop("labels")
                tables["tiling"].pop("missed")
            if coarser:
                truth = truth_on_cells.CoarseTruth(tables["truth"]["coords"], tables["truth"]["values"])
                sums = truth_on_cells.coarser(tables["voxels"]["coords"], truth, coarser)
                tables["voxels"]["coarser_row"] = sums.row
                tables["coarser"] = {"coords": sums.coords, "values": sums.values}
            writer.append(number, tables)
    return path


def run(source, output, *flags):
    parser = argparse.ArgumentParser()
    join_tpcs.add_arguments(parser)
    return join_tpcs.run(parser.parse_args(["-i", str(source), "-o", str(output), *flags]))


def read(path, event=0):
    with shards.Shard(path, XY) as shard:
        return shard.attributes, {t: shard.read(event, t) for t in shard.tables if t != "events"}


@pytest.fixture
def beam_side(tmp_path):
    events = {tpc: [image(10 * tpc), image(10 * tpc + 1)] for tpc in (1, 5, 9)}
    for tpc, its in events.items():
        write_xy(tmp_path / "xy", tpc, its)
    return tmp_path / "xy", events


def test_beam_side_is_one_long_image(beam_side, tmp_path):
    source, events = beam_side
    out = tmp_path / "joined"
    assert run(source, out) == 0
    path = out / "batch0-reco_BeamCosmic_001_xy-TPC159.h5"
    assert names.require(path).tpcs == (1, 5, 9)
    for number in (0, 1):
        attributes, tables = read(path, number)
        wanted = {}
        for tpc, z in ((1, 0), (5, 290), (9, 580)):
            rows = events[tpc][number]["voxels"]
            for cell, features, label in zip(*rows.values(), strict=True):
                wanted[tuple(cell + [0, 0, z])] = (*features, *label)
        got = tables["voxels"]
        assert list(map(tuple, got["coords"])) == sorted(wanted)
        rows = np.concatenate([got["features"], got["labels"]], axis=1)
        np.testing.assert_array_equal(rows, [wanted[cell] for cell in sorted(wanted)])
        assert tables["tiling"]["lost_charge"].tolist() == [[3, 6, 9]]
        assert tables["tiling"]["missed"] == sum(
            len(e[number]["truth"]["coords"]) - len(e[number]["voxels"]["coords"]) for e in events.values()
        )
        assert set(tables["truth"]) == {"coords", "values", "track_id", "pdg"}
    assert attributes["tpc"] == [1, 5, 9]
    assert attributes["spatial_shape"] == [750, 748, 868]
    joined = attributes["joined"]
    assert joined["shift_voxels"] == [[0, 0, 0], [0, 0, 290], [0, 0, 580]]
    assert np.abs(joined["residual_mm"]).max() == 0
    report = json.loads((out / "join-TPC159.json").read_text())
    assert report["jobs"][0]["result"]["duplicates"] == 0
    assert run(source, out) == 0
    assert json.loads((out / "join-TPC159.json").read_text())["counts"] == {"skipped": 1}
    assert run(source, out, "--t0", "0") == 0
    assert json.loads((out / "join-TPC159.json").read_text())["jobs"][0]["reason"] == "stale: t0_us changed"


def test_opposite_sides_are_mirrored_and_shared_cells_summed(tmp_path):
    """A cell of TPC 2 at i lies at 1145 - i in the frame of TPC 1; where both have it, charge and truth add up."""

    def lone(x, charge):  # fmt: skip
        cell = np.array([[x, 5, 6]], np.int32)
        return {
            "voxels": {"coords": cell, "features": np.full((1, 3), charge, "f4"),
                       "labels": np.array([[charge]], "f4")},
            "truth": {"coords": cell, "values": np.array([[charge]], "f4")},
            "tiling": {"lost_charge": np.zeros(3), "fine_voxels": 1, "missed": 0},
        }  # fmt: skip

    for tpc, x, charge in ((1, 700, 10.0), (2, 445, 4.0)):
        write_xy(tmp_path / "xy", tpc, [lone(x, charge)])
    assert run(tmp_path / "xy", tmp_path / "exact", "--tpcs", "1,2") == 0
    attributes, tables = read(tmp_path / "exact" / "batch0-reco_BeamCosmic_001_xy-TPC12.h5")
    assert tables["voxels"]["coords"].tolist() == [[700, 5, 6]] == tables["truth"]["coords"].tolist()
    assert tables["voxels"]["features"].tolist() == [[14, 14, 14]]
    assert tables["voxels"]["labels"] == tables["truth"]["values"] == 14
    assert attributes["joined"]["duplicates"] == 1
    assert attributes["feature_names"] == ["U/V", "X", "V/U"]
    assert attributes["spatial_shape"] == [1146, 748, 288]
    assert attributes["joined"]["residual_mm"][1][0] == pytest.approx(-0.04, abs=1e-6)

    assert run(tmp_path / "xy", tmp_path / "legacy", "--tpcs", "1,2", "--legacy-mirror") == 0
    attributes, tables = read(tmp_path / "legacy" / "batch0-reco_BeamCosmic_001_xy-TPC12.h5")
    assert tables["voxels"]["coords"].tolist() == [[700, 5, 6], [701, 5, 6]]
    assert attributes["joined"]["duplicates"] == 0

    assert run(tmp_path / "xy", tmp_path / "t0", "--tpcs", "1,2", "--t0", "0") == 0
    _, tables = read(tmp_path / "t0" / "batch0-reco_BeamCosmic_001_xy-TPC12.h5")
    # 391.25 mm back towards the anode each, to whole cells
    assert tables["voxels"]["coords"][:, 0].tolist() == [700 - 62, 1209 - 1 - 445]


def test_negative_cells_can_be_left_out(tmp_path):
    for tpc in (1, 5):
        write_xy(tmp_path / "xy", tpc, [image(tpc)])
    flags = ("--tpcs", "1,5", "--t0", "0")
    assert run(tmp_path / "xy", tmp_path / "all", *flags) == 0
    assert run(tmp_path / "xy", tmp_path / "inside", *flags, "--drop-negative") == 0
    name = "batch0-reco_BeamCosmic_001_xy-TPC15.h5"
    _, everything = read(tmp_path / "all" / name)
    attributes, inside = read(tmp_path / "inside" / name)
    for table in ("voxels", "truth"):
        keep = (everything[table]["coords"] >= 0).all(axis=1)
        np.testing.assert_array_equal(inside[table]["coords"], everything[table]["coords"][keep])
    dropped = (everything["voxels"]["coords"] < 0).any(axis=1).sum()
    assert attributes["joined"]["dropped"] == dropped > 0


def test_data_without_truth_and_two_digit_names(tmp_path):
    for tpc in (1, 5, 10):
        write_xy(tmp_path / "xy", tpc, [image(tpc)], labels=False)
    assert run(tmp_path / "xy", tmp_path / "out", "--tpcs", "1,5,10") == 0
    path = tmp_path / "out" / "batch0-reco_BeamCosmic_001_xy-TPCJ1-5-10.h5"
    _, tables = read(path)
    assert set(tables["voxels"]) == {"coords", "features"}
    assert "truth" not in tables
    assert names.require(path).tpcs == (1, 5, 10)


def test_truth_on_a_coarser_grid_is_that_of_the_joined_image(tmp_path):
    """Blocks of cells may reach from one TPC into the next: they are made again."""
    factors = [5, 7, 600]
    for tpc in (1, 5):
        write_xy(tmp_path / "xy", tpc, [image(tpc)], coarser=factors)
    assert run(tmp_path / "xy", tmp_path / "out", "--tpcs", "1,5") == 0
    attributes, tables = read(tmp_path / "out" / "batch0-reco_BeamCosmic_001_xy-TPC15.h5")
    assert attributes["downsample_y"] == factors
    sums = {}
    for cell, value in zip(
        tables["truth"]["coords"] // factors, tables["truth"]["values"][:, 0], strict=True
    ):
        sums[tuple(cell)] = sums.get(tuple(cell), 0.0) + float(value)
    coarser = tables["coarser"]
    assert list(map(tuple, coarser["coords"])) == sorted(sums)
    np.testing.assert_allclose(coarser["values"][:, 0], [sums[cell] for cell in sorted(sums)], rtol=1e-6)
    rows = [sorted(sums).index(tuple(cell)) for cell in tables["voxels"]["coords"] // factors]
    assert tables["voxels"]["coarser_row"].tolist() == rows


def test_incomplete_groups_are_skipped_and_said(beam_side, tmp_path, caplog):
    source, _ = beam_side
    write_xy(source, 1, [image(3)], index=2)
    with caplog.at_level(logging.WARNING, "hpcreco"):
        assert run(source, tmp_path / "out") == 0
    assert "BeamCosmic 2 batch 0 xy lacks TPC 5, 9: skipped" in caplog.text
    assert len(list((tmp_path / "out").glob("*.h5"))) == 1
    with pytest.raises(join_tpcs.JoinUsageError, match="no group of xy files has all"):
        run(source, tmp_path / "out", "--tpcs", "1,6")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"events": [image(1)]}, "holds 1:"),
        ({"ids": [0, 7]}, "ids must agree"),
        ({"tiling_threshold": 5.0}, "tiling_threshold is 5.0"),
        ({"labels": False}, "y_type"),
        ({"geometry_digest": "other"}, "--geometry"),
    ],
)
def test_files_that_do_not_belong_together_fail_alone(beam_side, tmp_path, changes, said):
    source, events = beam_side
    for tpc in (1, 5, 9):
        write_xy(source, tpc, events[tpc], index=2)
    changed = dict(changes)
    write_xy(source, 5, changed.pop("events", events[5]), **changed)
    assert run(source, tmp_path / "out") == 1
    jobs = json.loads((tmp_path / "out" / "join-TPC159.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["failed", "done"]
    assert said in jobs[0]["error"]


@pytest.mark.parametrize(
    "flags", [("--tpcs", "1"), ("--tpcs", "1,1"), ("--tpcs", "a,b"), ("--product", "wire")]
)
def test_options_that_make_no_sense_are_refused(beam_side, tmp_path, flags):
    with pytest.raises(join_tpcs.JoinUsageError):
        run(beam_side[0], tmp_path / "out", *flags)


def truth_file(folder, tpc, coords, electrons, npz=False):
    name = names.compose("BeamCosmic", 1, "depoElectron", tpc)
    if npz:
        path = folder / name.replace(".h5", ".npz")
        folder.mkdir(exist_ok=True)
        write_npz(path, [np.concatenate([coords, electrons[:, None]], axis=1)])
        return
    attributes = {
        "event_type": "BeamCosmic", "index": 1, "product": "depoElectron", "tpc": tpc, "geometry": "pdsp",
        "geometry_digest": PDSP.digest, "generator": "test", "fingerprint": "x",
    }  # fmt: skip
    with parsed.truth_writer(folder / name, attributes) as writer:
        parsed.append_truth(writer, 0, coords, electrons)


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize("t0", [-250.0, 100.0])
def test_parsed_truth_lies_at_the_points_it_came_from(tmp_path, npz, t0):
    """Charge deposited at t0 returns to the voxel of its position in the frame, to the rounding of the shift."""
    rng = np.random.default_rng(5)
    points, placed = [], []
    for tpc in (1, 2):
        face = PDSP.face(tpc)
        position = rng.uniform(np.array(face.r_min) + 1, np.array(face.r_max) - 1, (50, 3))
        local, keep = PDSP.to_local(tpc, position, t0)
        assert keep.all()
        truth_file(tmp_path / "parsed", tpc, np.floor(local / VOXEL_SIZE), np.ones(50), npz)
        points.append(position)
    flags = ("--tpcs", "1,2", "--product", "depoElectron", "--t0", str(t0))
    assert run(tmp_path / "parsed", tmp_path / "out", *flags) == 0
    (path,) = (tmp_path / "out").glob("*.h5")
    with parsed.open_parsed(path) as file:
        truth, joined = file.truth(0), file.attributes["joined"]
    assert names.require(path).tpcs == (1, 2)
    placed = (truth.coords + 0.5) * VOXEL_SIZE + joined["origin_mm"]
    apart = np.abs(placed[:, None] - np.concatenate(points)[None]).max(axis=2).min(axis=1)
    assert len(placed) == 100
    assert (apart <= 1.0 + np.abs(joined["residual_mm"]).max()).all()


def test_joined_images_are_read_and_the_size_they_need_is_named(beam_side, tmp_path):
    source, events = beam_side
    events[9][0]["voxels"]["coords"][-1] = [749, 747, 287]
    write_xy(source, 9, events[9])
    assert run(source, tmp_path / "out") == 0
    (path,) = (tmp_path / "out").glob("*.h5")
    with shards.Shard(path, XY) as shard:
        for training in (True, False):
            with pytest.raises(DataError, match=r"set it to \[1024, 1024, 1024\]"):
                XYReader(room(tmp_path, [1024, 1024, 512]), training)(shard, 0, np.random.default_rng(1))
            event = XYReader(room(tmp_path, [1024, 1024, 1024]), training)(shard, 0, np.random.default_rng(1))
            assert event.tables["voxels"]["coords"].max(axis=0)[2] == 867
            assert event.tables["voxels"]["features"].shape[1] == 3


def room(folder, spatial_size):
    """A run whose network has room for so many voxels."""
    return dialect.normalise(
        {
            "output_dir": str(folder / "run"), "data": {"data_path": str(folder), "inference_i": [0, 9]},
            "model": {"name": "cellnet_binary", "spatial_size": spatial_size},
        }
    )  # fmt: skip


def test_particles_of_any_tpc_are_listed_once(tmp_path):
    for tpc, tracks in ((1, [4, 7]), (5, [2, 7]), (9, [])):
        path = tmp_path / "parsed" / names.compose("BeamCosmic", 1, "mcbeamcosmic", tpc)
        attributes = {
            "event_type": "BeamCosmic", "index": 1, "product": "mcbeamcosmic", "tpc": tpc, "geometry": "pdsp",
            "geometry_digest": PDSP.digest, "generator": "test",
        }  # fmt: skip
        with shards.ShardWriter(path, parsed.PARTICLES, attributes) as writer:
            columns = {
                "track_id": np.array(tracks, np.int32),
                "beam": np.array([t == 7 for t in tracks], np.uint8),
            }
            writer.append(0, {"particles": columns})
    assert run(tmp_path / "parsed", tmp_path / "out", "--product", "mcbeamcosmic") == 0
    with shards.Shard(
        tmp_path / "out" / "reco_BeamCosmic_001_mcbeamcosmic-TPC159.h5", parsed.PARTICLES
    ) as shard:
        particles = shard.read(0, "particles")
        assert particles["track_id"].tolist() == [2, 4, 7]
        assert particles["beam"].tolist() == [0, 0, 1]
        assert shard.attributes["joined"]["duplicates"] == 1


def test_the_originals_joined_files_are_read(tmp_path):
    """An npz with the token TPC159 becomes a shard that says which TPCs it holds and how large their image is."""
    path = tmp_path / "batch0-reco_BeamCosmic_004_xy-TPC159.npz"
    rows = np.array([[749, 747, 867, 0, 1, 2, 3]], np.float32)
    np.savez(path, X=rows, Y=np.ones((1, 1), np.float32), starts=np.zeros(1))
    legacy.import_xy(path, tmp_path / "ours.h5")
    with shards.Shard(tmp_path / "ours.h5", XY) as shard:
        assert shard.attributes["tpc"] == [1, 5, 9]
        assert shard.attributes["spatial_shape"] == [750, 748, 868]
        assert shard.attributes["feature_names"] == ["U", "X", "V"]
