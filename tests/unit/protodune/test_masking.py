"""A charge network's output masked by a deghosting network's: rows, provenance, refusals, and the verb."""

import argparse
import json

import numpy as np
import pytest

from hpcreco import shards, yinf
from hpcreco.experiments.protodune import mask, masking
from hpcreco.experiments.protodune.yinf import YINF
from hpcreco.yinf import YinfError

COORDS = [np.arange(3 * n, dtype=np.int32).reshape(-1, 3) for n in (4, 0, 3)]
CHARGE = [np.array([1.0, 2, 3, 4]), np.zeros(0), np.array([-5.0, 6, 7])]
GHOST = [np.array([0.1, 0.35, 0.9, 0.349]), np.zeros(0), np.array([0.8, 0.0, 1.0])]
KEPT = [[0, 2, 3, 0], [], [-5, 0, 7]]


def write(folder, kind, values, digest="d1", epoch=3, stem="batch0-reco_BeamCosmic_001_xy-TPC1.h5"):
    about = {
        "experiment": "protodune", "epoch": epoch, "step": 1, "checkpoint": "", "checkpoint_digest": "c0",
        "input_file": stem, "input_digest": digest, "backend": "native", "ranks": 1, "kind": kind, "tpc": [1],
        "sums": {"loss": 1.0},
    }  # fmt: skip
    path = folder / yinf.file_name(epoch, folder / stem)
    with shards.ShardWriter(path, YINF, about) as writer:
        for number, (coords, column) in enumerate(zip(COORDS, values, strict=True)):
            rows = {"coords": coords[: len(column)], masking.COLUMN[kind]: column.astype(np.float32)}
            writer.append(7 + number, {"voxels": rows})
    return path


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "charge", "electrons", CHARGE), write(tmp_path / "ghost", "probability", GHOST)


def run(*arguments):
    parser = argparse.ArgumentParser()
    mask.add_arguments(parser)
    return mask.run(parser.parse_args([str(argument) for argument in arguments]))


def test_what_is_below_the_threshold_has_no_charge(pair):
    with masking.paired(*pair) as (charge, ghost):
        for event, kept in enumerate(KEPT):  # 0.35 as float32 is a little more than 0.35: it is kept
            assert masking.read_masked(charge, ghost, event).tolist() == kept
        assert masking.read_masked(charge, ghost, 0, 0.0).tolist() == CHARGE[0].tolist()
        assert not masking.read_masked(charge, ghost, 0, 1.1).any()


def test_the_verb_writes_yinf_files_in_the_same_rows(pair, tmp_path):
    out = tmp_path / "masked"
    assert run(pair[0].parent, "--ghosts", pair[1].parent, "-o", out) == 0
    (path,) = out.glob("*.h5")
    assert path.name == pair[0].name
    assert shards.validate(path, YINF) == []
    with shards.Shard(path, YINF) as made, masking.paired(*pair) as (charge, ghost):
        assert made.event_ids.tolist() == [7, 8, 9]
        for event, kept in enumerate(KEPT):
            rows = made.read(event, "voxels")
            assert rows["charge"].tolist() == kept
            assert (rows["coords"] == COORDS[event]).all()
        about = made.attributes
        assert (about["kind"], about["mask_threshold"]) == ("electrons", 0.35)
        assert (about["charge_digest"], about["mask_digest"]) == (charge.digest, ghost.digest)
        assert about["input_digest"] == "d1"
        assert "sums" not in about  # the loss was of other numbers


def test_skipped_when_finished_and_made_again_with_another_threshold(pair, tmp_path):
    flags = (pair[0], "--ghosts", pair[1], "-o", tmp_path / "out")
    found = []
    for more in ((), (), ("--threshold", "0.5")):
        assert run(*flags, *more) == 0
        found += [job["status"] for job in json.loads((tmp_path / "out/mask.json").read_text())["jobs"]]
    assert found == ["done", "skipped", "done"]


def test_files_of_different_xy_files_are_not_combined(pair, tmp_path):
    other = write(tmp_path / "other", "probability", GHOST, digest="d2")
    with pytest.raises(YinfError, match="different xy files"), masking.paired(pair[0], other):
        pass
    assert run(pair[0], "--ghosts", other, "-o", tmp_path / "out") == 1
    (job,) = json.loads((tmp_path / "out/mask.json").read_text())["jobs"]
    assert "no file of --ghosts is of the same xy file" in job["error"]


def test_other_mistakes_are_refused_with_the_remedy(pair, tmp_path):
    charge, ghost = pair
    with pytest.raises(YinfError, match="exchange the files"), masking.paired(ghost, charge):
        pass
    short = write(tmp_path / "short", "probability", [GHOST[0][:3], *GHOST[1:]])
    with pytest.raises(YinfError, match="different numbers of voxels"), masking.paired(charge, short):
        pass
    later = write(tmp_path / "ghost", "probability", GHOST, epoch=12)
    with pytest.raises(YinfError, match="give one of them"):
        run(charge, "--ghosts", ghost, later, "-o", tmp_path / "out")
    assert run(charge, "--ghosts", ghost.parent, "-o", tmp_path / "out") == 0  # the last epoch's alone
    with pytest.raises(mask.MaskError, match="overwrite its own input"):
        run(charge, "--ghosts", ghost, "-o", charge.parent)
    with pytest.raises(mask.MaskError, match="holds no yinf files"):
        run(tmp_path / "out" / "..", "--ghosts", _empty(tmp_path), "-o", tmp_path / "out2")


def _empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder
