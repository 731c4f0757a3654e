"""The verb solve on small files: what it writes, skips and refuses. The charges themselves: test_solving.py."""

import argparse
import json

import numpy as np
import pytest

from hpcreco import shards, yinf
from hpcreco.experiments.protodune import geometry, parsed, solve
from hpcreco.experiments.protodune.solved import SOLVED
from hpcreco.experiments.protodune.solving.cells import Choice, grown
from hpcreco.experiments.protodune.solving.equations import cell_shares
from hpcreco.experiments.protodune.xy import XY
from hpcreco.experiments.protodune.yinf import YINF

PDSP = geometry.load()
TPC, N_TICKS = 2, 256
FACE = PDSP.face(TPC)


def event(seed):
    """True cells of a line, their charge, and candidates: the same and some ghosts; all sorted."""
    rng = np.random.default_rng(seed)
    line = np.array([2, 200, 40]) + np.arange(0, 20, 0.5)[:, None] * rng.uniform((0.5, -1, -1), (1, 1, 1))
    true = np.unique(line.astype(np.int32), axis=0)
    charge = rng.uniform(5e3, 3e4, len(true)).astype(np.float32)
    ghosts = true + rng.integers(1, 9, true.shape) * [0, 1, 1]
    return true, charge, np.unique(np.concatenate([true, ghosts]), axis=0).astype(np.int32)


def wire_file(folder, index, seeds, scale=1.0, dead=()):
    path = folder / f"reco_singleElectron_{index:03d}_wire-TPC{TPC}.h5"
    about = {
        "event_type": "Electron", "index": index, "product": "wire", "tpc": TPC, "geometry": "pdsp",
        "geometry_digest": PDSP.digest, "generator": "test", "n_ticks": N_TICKS, "n_channels": 2560,
        "dead_channels": list(dead),
    }  # fmt: skip
    with parsed.wire_writer(path, about) as writer:
        for number, seed in enumerate(seeds):
            true, charge, _ = event(seed)
            shares = cell_shares(FACE, true[:, 1:], (4, 4), 2560).tocoo()
            key = true[shares.row, 0].astype(int) * 8 * 2560 + shares.col
            key, at = np.unique(key, return_inverse=True)
            value = scale * np.bincount(at, shares.data * charge[shares.row])
            live = ~np.isin(key % 2560, dead)
            parsed.append_waveform(writer, 10 + number, key[live] // 2560, key[live] % 2560, value[live])
    return path


def xy_file(folder, wire, seeds, truth=True, **more):
    with shards.Shard(wire) as source:
        digest, index = source.digest, source.attributes["index"]
    about = {
        "event_type": "Electron", "index": index, "batch": 0, "n_batches": 1, "tpc": [TPC], "downsample": [8, 4, 4],
        "voxel_size_mm": [6.26, 8.0, 8.0], "frame_origin_mm": list(FACE.r_min), "spatial_shape": [32, 748, 288],
        "feature_names": ["U", "X", "V"], "x_type": "wire", "y_type": "depoElectron", "y_unit": "electrons",
        "tiling_threshold": 1e-3, "active_none": True, "clip_negative": False, "legacy_rounding": False,
        "dead_channels": [], "tiling_version": 1, "geometry": "pdsp", "geometry_digest": PDSP.digest,
        "source_digests": [digest], "source_files": [str(wire)],
    } | more  # fmt: skip
    path = folder / f"batch0-reco_singleElectron_{index:03d}_xy-TPC{TPC}.h5"
    columns = {"voxels/features": ("U", "X", "V")} | ({"truth/values": ("electrons",)} if truth else {})
    with shards.ShardWriter(path, XY, about, columns) as writer:
        for number, seed in enumerate(seeds):
            true, charge, candidates = event(seed)
            tables = {"voxels": {"coords": candidates, "features": np.zeros((len(candidates), 3))}}
            if truth:
                tables["truth"] = {"coords": true, "values": charge[:, None]}
            writer.append(10 + number, tables)
    return path


def yinf_file(folder, xy, seeds, epoch=3, kind="probability", ghost_score=0.2):
    """A network that gives true cells 0.9 or exactly 0.35, and ghosts `ghost_score`."""
    with shards.Shard(xy) as shard:
        about = {
            "experiment": "protodune", "epoch": epoch, "step": 1, "checkpoint": "", "checkpoint_digest": "c0",
            "input_file": str(xy), "input_digest": shard.digest, "backend": "native", "ranks": 1, "kind": kind,
        }  # fmt: skip
    path = folder / yinf.file_name(epoch, xy)
    with shards.ShardWriter(path, YINF, about) as writer:
        for number, seed in enumerate(seeds):
            true, _, candidates = event(seed)
            is_true = (candidates[:, None] == true).all(2).any(1)
            score = np.where(is_true, 0.9, ghost_score).astype(np.float32)
            score[np.flatnonzero(is_true)[::3]] = np.float32(0.35)
            rows = {"coords": candidates, {"electrons": "charge"}.get(kind, kind): score}
            writer.append(10 + number, {"voxels": rows})
    return path


@pytest.fixture
def files(tmp_path):
    """Parsed, xy and yinf folders of two files with two and one events."""
    folders = {name: tmp_path / name for name in ("parsed", "xy", "run")}
    for folder in folders.values():
        folder.mkdir()
    for index, seeds in ((1, (1, 2)), (2, (3,))):
        xy = xy_file(folders["xy"], wire_file(folders["parsed"], index, seeds), seeds)
        yinf_file(folders["run"], xy, seeds)
    return folders


def run(*arguments):
    parser = argparse.ArgumentParser()
    solve.add_arguments(parser)
    return solve.run(parser.parse_args([str(argument) for argument in arguments]))


def report(folder):
    return json.loads((folder / "solve.json").read_text())["jobs"]


def read(path):
    with shards.Shard(path, SOLVED) as shard:
        tables = [(shard.read(e, "voxels"), shard.read(e, "wires")) for e in range(shard.n_events)]
        return shard.attributes, shard.event_ids.tolist(), tables


def test_cells_of_a_network_get_the_charge_that_the_wires_saw(files, tmp_path):
    out = tmp_path / "solved"
    assert run(files["run"], "-o", out) == 0
    names = [f"epoch3-batch0-reco_singleElectron_00{i}_solved-TPC{TPC}.h5" for i in (1, 2)]
    assert sorted(p.name for p in out.glob("*.h5")) == names
    for name, seeds in zip(names, ((1, 2), (3,)), strict=True):
        assert shards.validate(out / name, SOLVED) == []
        about, ids, tables = read(out / name)
        assert ids == [10 + k for k in range(len(seeds))]
        for seed, (voxels, wires) in zip(seeds, tables, strict=True):
            true, charge, _ = event(seed)
            assert (voxels["coords"] == true).all()  # a probability of the threshold itself is enough
            np.testing.assert_allclose(voxels["charge"], charge, rtol=1e-3)
            for column in ("seen", "used", "explained"):
                np.testing.assert_allclose(wires[column], charge.sum(dtype=float), rtol=1e-4)
        assert about["epoch"] == 3
        with (
            shards.Shard(files["run"] / name.replace("solved", "yinf")) as made,
            shards.Shard(files["xy"] / name.removeprefix("epoch3-").replace("solved", "xy")) as xy,
        ):
            assert about["yinf_digest"] == made.digest
            assert (about["xy_digest"], about["wire_digest"]) == (
                xy.digest,
                xy.attributes["source_digests"][0],
            )


def test_true_cells_and_all_candidates(files, tmp_path):
    assert run(files["xy"], "-o", tmp_path / "true", "--cells", "truth", "--threshold", "9000") == 0
    assert run(files["xy"], "-o", tmp_path / "all", "--cells", "all") == 0
    name = f"batch0-reco_singleElectron_002_solved-TPC{TPC}.h5"
    true, charge, candidates = event(3)
    _, _, [(voxels, _)] = read(tmp_path / "true" / name)
    assert (voxels["coords"] == true[charge > 9000]).all()
    _, _, [(voxels, wires)] = read(tmp_path / "all" / name)
    assert (voxels["coords"] == candidates).all()
    np.testing.assert_allclose(wires["explained"], charge.sum(dtype=float), rtol=1e-4)
    assert wires["misfit"] < 1e-5


def test_finished_files_are_skipped_and_stale_ones_made_again(files, tmp_path):
    out = tmp_path / "solved"

    def statuses(*flags):
        assert run(files["run"], "-o", out, *flags) == 0
        return [job["status"] for job in report(out)]

    assert statuses() == ["done", "done"]
    assert statuses() == ["skipped", "skipped"]
    assert statuses("--threshold", "0.4") == ["done", "done"]
    assert statuses("--threshold", "0.4", "--method", "ols") == ["done", "done"]
    xy = sorted(files["xy"].glob("*_002_*"))[0]
    yinf_file(files["run"], xy, (3,), ghost_score=0.7)
    assert statuses("--threshold", "0.4", "--method", "ols") == ["skipped", "done"]


def test_the_last_epoch_of_a_folder_is_taken(files, tmp_path):
    xy = sorted(files["xy"].glob("*_002_*"))[0]
    yinf_file(files["run"], xy, (3,), epoch=12)
    assert run(files["run"], "-o", tmp_path / "last") == 0
    assert [p.name[:8] for p in sorted((tmp_path / "last").glob("*.h5"))] == ["epoch12-"]
    assert run(files["run"], "-o", tmp_path / "third", "--epoch", "3") == 0
    assert len(sorted((tmp_path / "third").glob("epoch3-*.h5"))) == 2


def test_dead_channels_of_the_waveforms_are_left_out(tmp_path):
    true, charge, _ = event(5)
    plane = next(p for p in FACE.planes if p.name == "X")
    shares = cell_shares(FACE, true[:, 1:], (4, 4), 2560)[:, plane.channels].toarray()
    dead = int(plane.channels[shares.sum(0).argmax()])
    xy = xy_file(tmp_path, wire_file(tmp_path, 1, (5,), dead=(dead,)), (5,))
    assert run(xy, "-o", tmp_path / "out", "--cells", "truth") == 0
    about, _, [(voxels, wires)] = read(
        tmp_path / "out" / f"batch0-reco_singleElectron_001_solved-TPC{TPC}.h5"
    )
    assert about["dead_channels"] == [dead]
    np.testing.assert_allclose(voxels["charge"], charge, rtol=1e-3)
    assert wires["misfit"] < 1e-5
    assert run(xy, "-o", tmp_path / "none", "--cells", "truth", "--dead-channels", "none") == 0
    _, _, [(_, wires)] = read(tmp_path / "none" / f"batch0-reco_singleElectron_001_solved-TPC{TPC}.h5")
    assert wires["misfit"] > 1e-2


def test_waveforms_made_again_are_refused_and_moved_ones_found(files, tmp_path, capsys):
    moved = files["parsed"].rename(tmp_path / "elsewhere")
    assert run(files["run"], "-o", tmp_path / "lost") == 1
    assert "name the folder with -i PARSED" in report(tmp_path / "lost")[0]["error"]
    assert run(files["run"], "-o", tmp_path / "found", "-i", moved) == 0
    wire_file(moved, 2, (3,), scale=1.1)
    assert run(files["run"], "-o", tmp_path / "changed", "-i", moved) == 1
    first, second = report(tmp_path / "changed")
    assert first["status"] == "done"  # one bad file fails alone
    assert "run `hpcreco tile` again" in second["error"]


@pytest.mark.parametrize(("change", "message"), [
    ({"tpc": [1, 5]}, "solve each TPC"),
    ({"geometry_digest": "other"}, "another geometry"),
    ({"x_type": "hit"}, "hit file"),
])  # fmt: skip
def test_files_that_cannot_be_solved_say_why(tmp_path, change, message):
    xy = xy_file(tmp_path, wire_file(tmp_path, 1, (1,)), (1,), **change)
    assert run(xy, "-o", tmp_path / "out", "--cells", "truth") == 1
    assert message in report(tmp_path / "out")[0]["error"]


def test_wrong_use_says_what_is_needed(files, tmp_path):
    xy = sorted(files["xy"].glob("*.h5"))
    for arguments, message in (
        ((xy[0],), "--cells network needs yinf files"),
        ((files["xy"],), "no yinf files"),
        ((files["run"], "--epoch", "4"), "no yinf files of epoch 4"),
        ((tmp_path / "nowhere",), "no such file or folder"),
        ((files["run"], "--grow", "-1"), "0 or more"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            run(*arguments, "-o", tmp_path / "out")
        assert caught.value.exit_code == 2


def test_electrons_choose_no_cells(files, tmp_path):
    xy = sorted(files["xy"].glob("*.h5"))[0]
    charge = yinf_file(tmp_path, xy, (1, 2), kind="electrons")
    assert run(charge, "-o", tmp_path / "out") == 1
    assert "chosen by probability" in report(tmp_path / "out")[0]["error"]


def test_growing_takes_candidates_along_the_drift_only():
    rng = np.random.default_rng(1)
    candidates = np.unique(rng.integers(0, 6, (80, 3)), axis=0)
    cells = candidates[::7]
    for slices in (0, 1, 2):
        every = {tuple(c) for c in cells.tolist()} | {
            tuple(c)
            for c in candidates.tolist()
            if any(c[1:] == d[1:] and abs(c[0] - d[0]) <= slices for d in cells.tolist())
        }
        assert [tuple(c) for c in grown(cells, candidates, slices).tolist()] == sorted(every)
    assert Choice("network", 0.35).grow == 0
