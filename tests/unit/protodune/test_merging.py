"""Several TPCs in one frame and the gap between APAs bridged: arithmetic by hand, and the verb."""

import argparse
import json

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, joining, merge_tpcs
from hpcreco.experiments.protodune.joining import merging
from hpcreco.experiments.protodune.solved import MERGED, SOLVED

PDSP = geometry.load()
CELL = (6.26, 8.0, 8.0)
NONE = (np.zeros((0, 3), np.int32), np.zeros((0, 1)))


def frame(*tpcs):
    return joining.frame(PDSP, tpcs, CELL)


def cells(*rows):
    """(x, y, z, value...) rows as coords and values."""
    table = np.array(rows, float)
    return table[:, :3].astype(np.int32), table[:, 3:]


def test_gaps_lie_between_neighbours_of_one_side_only():
    found = merging.gaps(frame(1, 5, 9), 8.0)
    assert [(g.lower, g.upper, g.low, g.high) for g in found] == [(1, 5, 287, 290), (5, 9, 577, 580)]
    assert all(g.low_share == pytest.approx(0.5) for g in found)  # 1150 pixels are 287.5 cells
    assert [(g.lower, g.upper) for g in merging.gaps(frame(2, 5, 1, 6), 8.0)] == [(2, 6), (1, 5)]
    assert merging.gaps(frame(1, 9), 8.0) == []  # a whole APA is between them
    fine = merging.gaps(joining.frame(PDSP, (1, 5), geometry.VOXEL_SIZE), 2.0)
    assert [(g.low, g.high, g.low_share) for g in fine] == [(1149, 1160, 1.0)]


def test_the_gap_is_the_straight_line_between_its_ends():
    lower, upper = cells((5, 7, 287, 900), (6, 7, 287, 300), (5, 7, 286, 1e6)), cells((5, 7, 290, 300))
    coords, values = merging.fill_gap(lower, upper, 287, 290)
    found = {tuple(c): v for c, v in zip(coords.tolist(), values[:, 0], strict=True)}
    assert found == pytest.approx({
        (5, 7, 288): 700, (5, 7, 289): 500,  # both ends known
        (6, 7, 288): 200, (6, 7, 289): 100,  # the other end is 0
    })  # fmt: skip


def test_small_values_are_dropped_and_any_column_is_enough():
    lower, upper = cells((1, 1, 0, 0.012, 0.0), (2, 1, 0, 0.012, 9.0)), cells((3, 3, 3, 0.0, -5.0))
    coords, values = merging.fill_gap(lower, upper, 0, 3, least=0.01)
    assert coords.tolist() == [[2, 1, 1], [2, 1, 2]]  # 0.008 and 0.004 of the first are too little
    np.testing.assert_allclose(values, [[0.008, 6], [0.004, 3]])


def test_placed_by_the_rule_of_joining_and_sorted():
    rng = np.random.default_rng(2)
    voxels = {
        tpc: (np.unique(rng.integers(0, (750, 748, 200), (50, 3)), axis=0).astype(np.int32), None)
        for tpc in (1, 5, 2)
    }
    voxels = {tpc: (c + [0, 0, 10], rng.random((len(c), 2))) for tpc, (c, _) in voxels.items()}
    merged = merging.merge(frame(1, 5, 2), 8.0, voxels)
    expected = {}
    for tpc, (coords, values) in voxels.items():
        face = PDSP.face(tpc)
        by = joining.shift(face, CELL, PDSP.face(1).r_min)
        for place, value in zip(joining.place(coords, face, by).tolist(), values, strict=True):
            expected.setdefault(tuple(place), []).append((tpc, value))
    assert [tuple(c) for c in merged.coords.tolist()] == sorted(expected)
    for cell, value, tpc in zip(merged.coords.tolist(), merged.values, merged.tpc, strict=True):
        assert tpc == expected[tuple(cell)][0][0]
        np.testing.assert_allclose(value, sum(v for _, v in expected[tuple(cell)]))


def test_charge_is_taken_by_area_where_the_edge_cuts_the_last_cells():
    """287.5 cells: the last one holds half the charge of a whole one, which is what is carried on."""
    voxels = {1: cells((10, 100, 287, 500)), 5: cells((10, 100, 0, 1000))}
    merged = merging.merge(frame(1, 5), 8.0, voxels)
    assert merged.tpc.tolist() == [1, merging.FILLED, merging.FILLED, 5]
    np.testing.assert_allclose(merged.values[:, 0], [500, 1000, 1000, 1000])
    score = {1: cells((10, 100, 287, 0.8)), 5: cells((10, 100, 0, 0.2))}
    merged = merging.merge(frame(1, 5), 8.0, score, additive=False)
    np.testing.assert_allclose(merged.values[:, 0], [0.8, 0.6, 0.4, 0.2])


def test_shared_voxels_add_charge_and_keep_the_larger_score():
    """Both drift sides reach beyond the cathode when the time is not known."""
    n_x = joining.shift(PDSP.face(2), CELL, PDSP.face(1).r_min).voxels[0]
    one = np.array([[600, 5, 5]], np.int32)
    other = np.array([[n_x - 1 - 600, 5, 5]], np.int32)  # face 1 is mirrored
    for additive, expected in ((True, 1.0), (False, 0.7)):
        voxels = {1: (one, np.array([[0.7]])), 2: (other, np.array([[0.3]]))}
        merged = merging.merge(frame(1, 2), 8.0, voxels, additive)
        assert merged.coords.tolist() == one.tolist()
        assert merged.values.tolist() == [[pytest.approx(expected)]]


def test_empty_events():
    merged = merging.merge(frame(1, 5), 8.0, {1: NONE, 5: NONE})
    assert merged.coords.shape == (0, 3) and merged.values.shape == (0, 1)


def solved_file(folder, tpc, index=1, ids=(7, 8), **more):
    about = {
        "event_type": "BeamCosmic", "index": index, "batch": 0, "n_batches": 1, "tpc": [tpc], "downsample": [8, 4, 4],
        "voxel_size_mm": list(CELL), "frame_origin_mm": list(PDSP.face(tpc).r_min), "spatial_shape": [750, 748, 288],
        "feature_names": ["V", "X", "U"], "geometry": "pdsp", "geometry_digest": PDSP.digest, "cells": "all",
        "threshold": 0.0, "grow": 0, "method": "nnls", "alpha": 0.0, "dead_channels": [], "solve_version": 1,
        "xy_digest": "", "wire_digest": "", "xy_file": "", "wire_file": "", "recipe": {},
    } | more  # fmt: skip
    path = folder / f"epoch3-batch0-reco_BeamCosmic_{index:03d}_solved-TPC{tpc}.h5"
    columns = {f"wires/{name}": ("V", "X", "U") for name in ("seen", "used", "explained")}
    wires = dict.fromkeys(("seen", "used", "explained"), np.zeros(3)) | {"misfit": 0.0}
    with shards.ShardWriter(path, SOLVED, about, columns) as writer:
        for number in ids:
            coords = np.array([[10, 100, 0], [10, 100, 287]], np.int32)
            voxels = {"coords": coords, "charge": np.array([1000.0, 500.0])}
            writer.append(number, {"voxels": voxels, "wires": wires})
    return path


def run(*arguments):
    parser = argparse.ArgumentParser()
    merge_tpcs.add_arguments(parser)
    return merge_tpcs.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_verb_merges_groups_and_skips_what_is_incomplete(tmp_path, caplog):
    inputs = [solved_file(tmp_path / "in", tpc) for tpc in (1, 5, 9)]
    solved_file(tmp_path / "in", 1, index=2)
    out = tmp_path / "out"
    assert run(tmp_path / "in", "-o", out) == 0
    assert "no file of TPC 5, 9 beside it" in caplog.text
    (path,) = out.glob("*.h5")
    assert path.name == "epoch3-batch0-reco_BeamCosmic_001_merged-TPC159.h5"
    assert shards.validate(path, MERGED) == []
    with shards.Shard(path, MERGED) as merged:
        assert merged.event_ids.tolist() == [7, 8]
        assert merged.columns("voxels", "values") == ("charge",)
        rows = merged.read(1, "voxels")
        assert rows["coords"][:, 2].tolist() == [0, 287, 288, 289, 290, 577, 578, 579, 580, 867]
        assert rows["tpc"].tolist() == [1, 1, -1, -1, 5, 5, -1, -1, 9, 9]
        assert rows["values"][:, 0].tolist() == [1000, 500, 1000, 1000, 1000, 500, 1000, 1000, 1000, 500]
        assert merged.attributes["source_digests"] == [shards.Shard(p).digest for p in inputs]
    assert run(tmp_path / "in", "-o", out) == 0
    assert [job["status"] for job in json.loads((out / "merge-tpcs.json").read_text())["jobs"]] == ["skipped"]
    assert run(tmp_path / "in", "-o", out, "--least", "900") == 0
    assert [job["status"] for job in json.loads((out / "merge-tpcs.json").read_text())["jobs"]] == ["done"]


def test_the_verb_says_why_it_cannot(tmp_path):
    with pytest.raises(merge_tpcs.MergeError, match="no such file"):
        run(tmp_path / "nowhere", "-o", tmp_path / "out")
    solved_file(tmp_path / "in", 1)
    with pytest.raises(merge_tpcs.MergeError, match="files of all TPCs 1 5"):
        run(tmp_path / "in", "-o", tmp_path / "out", "-t", "1", "5")
    with pytest.raises(merge_tpcs.MergeError, match="each once"):
        run(tmp_path / "in", "-o", tmp_path / "out", "-t", "1", "1")
    for change, message in (
        ({"ids": (7, 9)}, "different events"),
        ({"downsample": [8, 4, 2]}, "cell sizes"),
        ({"geometry_digest": "other"}, "another geometry"),
    ):
        solved_file(tmp_path / "in", 5, **change)
        assert run(tmp_path / "in", "-o", tmp_path / "out", "-t", "1", "5") == 1
        (job,) = json.loads((tmp_path / "out/merge-tpcs.json").read_text())["jobs"]
        assert message in job["error"]
