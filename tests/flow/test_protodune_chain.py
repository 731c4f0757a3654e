"""ProtoDUNE from seeds to a report, link by link, with the commands a user types and real MPI ranks."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcreco import config, shards
from hpcreco.experiments.protodune.xy import XY
from hpcreco.experiments.protodune.yinf import YINF
from hpcreco.train import checkpoint, summary

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Chain:
    """The folder the commands run in, and how to run one."""

    folder: Path
    hpcreco: object

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))


@pytest.fixture(scope="module")
def parsed(tmp_path_factory, mpiexec) -> Chain:
    """Link 1: simulated parsed files."""
    folder = tmp_path_factory.mktemp("chain")

    def run(ranks, *arguments, check=True, env=None, cwd=folder):
        return mpiexec(ranks, ["-m", "hpcreco", *arguments], cwd=cwd, check=check, env=env)

    run(2, "simulate", "protodune", "--preset", "tiny", "--seed", "1", "--out", "parsed")
    return Chain(folder, run)


@pytest.fixture(scope="module")
def tiled(parsed) -> Chain:
    """Link 2: xy shards, tiled by two ranks."""
    parsed.hpcreco(2, "tile", "-i", "parsed", "-o", "xy", "-t", "1")
    parsed.hpcreco(2, "tile", "-i", "parsed", "-o", "xy_charge", "-t", "1", "--y-type", "depoElectron")
    return parsed


@pytest.fixture(scope="module")
def trained(tiled) -> Chain:
    """Link 3: the tiny network, trained by two ranks, stopped on the way and resumed."""
    tiled.hpcreco(2, "train", "ghost3d_tiny")
    return tiled


@pytest.fixture(scope="module")
def inferred(trained) -> Chain:
    """Link 4: yinf shards of the last epoch."""
    trained.hpcreco(2, "infer", "ghost_inf_tiny")
    return trained


def test_parsed_files_are_valid(parsed):
    files = parsed.files("parsed/*.h5")
    assert len({path.name.split("_")[2] for path in files}) == 12
    parsed.hpcreco(1, "validate", *files)


def test_tiling_is_independent_of_ranks_and_skips_what_is_done(tiled):
    tiled.hpcreco(1, "tile", "-i", "parsed", "-o", "alone", "-t", "1")
    for path in tiled.files("xy/*.h5"):
        with shards.Shard(path, XY) as two, shards.Shard(tiled.folder / "alone" / path.name, XY) as one:
            assert one.digest == two.digest
    before = {path: path.stat().st_mtime_ns for path in tiled.files("xy/*.h5")}
    again = tiled.hpcreco(2, "tile", "-i", "parsed", "-o", "xy", "-t", "1")
    assert before == {path: path.stat().st_mtime_ns for path in tiled.files("xy/*.h5")}
    assert "12 already finished" in again.out


def test_other_options_make_tiles_stale(tiled):
    shutil.copytree(tiled.folder / "xy", tiled.folder / "stale")
    plan = tiled.hpcreco(1, "tile", "-i", "parsed", "-o", "stale", "-t", "1", "--threshold", "5", "--dry-run")
    assert "stale" in plan.out
    first = tiled.files("stale/*.h5")[0]
    first.write_bytes(first.read_bytes()[:2000])
    plan = tiled.hpcreco(1, "tile", "-i", "parsed", "-o", "stale", "-t", "1", "--dry-run")
    assert first.name.split("_")[2].lstrip("0") in plan.out
    tiled.hpcreco(1, "tile", "-i", "parsed", "-o", "stale", "-t", "1")
    with shards.Shard(first, XY) as remade, shards.Shard(tiled.folder / "xy" / first.name, XY) as made:
        assert remade.digest == made.digest


def test_training_learns(trained):
    rows = summary.read(trained.folder / "runs/ghost3d_tiny/summaries.csv")
    assert rows[-1]["valid_loss"] < 0.5 * rows[0]["train_loss"]
    assert rows[-1]["valid_auc_pe"] > rows[0]["valid_auc_pe"]


def test_stopped_training_goes_on_to_the_same_weights(trained):
    """The real network, interrupted by the job's time limit in mid-epoch; batch statistics included."""
    short = ["train", "ghost3d_tiny", "--set=train.n_epochs=3", "--set=schedule=null"]
    trained.hpcreco(2, *short, "--set=output_dir=straight")
    import time

    env = {"HPCRECO_JOB_END_TIME": str(int(time.time()) + 1)}  # over at once: stops after the first step
    for _ in range(2):
        ended = trained.hpcreco(
            2, *short, "--set=output_dir=stopped", "--resume", "auto", check=False, env=env
        )
        assert ended.code == 75, ended.err
    trained.hpcreco(2, *short, "--set=output_dir=stopped", "--resume", "auto")
    a, b = (checkpoint.load_latest(trained.folder / name)[1] for name in ("straight", "stopped"))
    assert checkpoint.digest(a["model"]) == checkpoint.digest(b["model"])
    assert checkpoint.digest(a["optimizer"]) == checkpoint.digest(b["optimizer"])


def test_two_ranks_with_summed_batch_statistics_equal_one(trained):
    """The real network in float64: the same steps on 1 and 2 ranks, batch normalisation over all of a step's rows."""
    exact = [
        "train", "ghost3d_tiny", "--set=train.n_epochs=1", "--set=train.precision=float64",
        "--set=parallel.sync_batch_norm=true", "--set=data.train_i=[1,4]", "--set=data.event_batch=2",
    ]  # fmt: skip
    trained.hpcreco(1, *exact, "--set=output_dir=exact1")
    trained.hpcreco(2, *exact, "--set=output_dir=exact2")
    a, b = (checkpoint.load_latest(trained.folder / name)[1]["model"] for name in ("exact1", "exact2"))
    for key, value in a.items():
        scale = float(value.abs().max()) or 1.0
        assert float((value - b[key]).abs().max()) < 1e-10 * scale, key


def test_inference_is_aligned_with_its_input_and_idempotent(inferred):
    made = inferred.files("runs/ghost3d_tiny/inference/epoch11-*.h5")
    assert len(made) == 3
    for path in made:
        with shards.Shard(path, YINF) as yinf:
            xy = Path(yinf.attributes["input_file"])
            with shards.Shard(inferred.folder / xy, XY) as source:
                assert yinf.attributes["input_digest"] == source.digest
                for event in range(source.n_events):
                    predicted, candidates = yinf.read(event, "voxels"), source.read(event, "voxels")
                    assert np.array_equal(predicted["coords"], candidates["coords"])
                    assert ((predicted["probability"] >= 0) & (predicted["probability"] <= 1)).all()
    before = {path: path.stat().st_mtime_ns for path in made}
    inferred.hpcreco(1, "infer", "ghost_inf_tiny")
    assert before == {path: path.stat().st_mtime_ns for path in made}


def test_training_with_resume_and_no_training_data_infers(inferred):
    """The user's own line: a config without train_i, given to train --resume."""
    ended = inferred.hpcreco(1, "train", "ghost_inf_tiny", "--resume", "-v")
    assert "3 already finished" in ended.out


def test_report_adds_up_and_refuses_what_does_not_belong(inferred):
    inferred.hpcreco(1, "report", "runs/ghost3d_tiny")
    report = inferred.folder / "runs/ghost3d_tiny/report"
    assert list(report.glob("*.png"))
    tables = list(report.glob("*.csv"))
    assert tables
    for table in tables:
        with open(table) as stream:
            assert len(list(csv.reader(stream))) > 1, table
    other = inferred.folder / "mismatched"
    shutil.copytree(inferred.folder / "runs/ghost3d_tiny", other)
    shutil.copytree(inferred.folder / "xy", inferred.folder / "xy_kept")
    try:
        remade = inferred.hpcreco(1, "tile", "-i", "parsed", "-o", "xy", "-t", "1", "--threshold", "5")
        assert remade.code == 0
        ended = inferred.hpcreco(1, "report", "mismatched", check=False)
        assert ended.code == 1
        assert "xy" in ended.err
        assert "yinf" in ended.err
    finally:
        shutil.rmtree(inferred.folder / "xy")
        shutil.move(inferred.folder / "xy_kept", inferred.folder / "xy")


def test_one_bad_file_fails_alone(tiled):
    shutil.copytree(tiled.folder / "parsed", tiled.folder / "damaged")
    victim = sorted((tiled.folder / "damaged").glob("*_003_wire-TPC1.h5"))[0]
    victim.write_bytes(victim.read_bytes()[:-500])
    ended = tiled.hpcreco(2, "tile", "-i", "damaged", "-o", "from_damaged", "-t", "1", check=False)
    assert ended.code == 1
    assert "003" in ended.out + ended.err
    assert len(tiled.files("from_damaged/*.h5")) == 11
    (report,) = [json.loads(path.read_text()) for path in tiled.files("from_damaged/*.json")]
    assert "003" in json.dumps(report)


def test_wrong_input_ends_training_with_the_file_and_a_remedy(tiled):
    """NaN charges, coordinates outside spatial_size, an unfinished file, an empty folder, an unknown key."""
    cases = {
        "nan": (lambda file: file["voxels/features"].__setitem__((0, 0), np.nan), "NaN|not finite|nan"),
        "outside": (lambda file: file["voxels/coords"].__setitem__((0, 2), 4000), "spatial_size"),
        "unfinished": (lambda file: file.attrs.__delitem__("complete"), "complete"),
    }
    for name, (damage, expected) in cases.items():
        folder = tiled.folder / name
        shutil.copytree(tiled.folder / "xy", folder)
        for path in folder.glob("*.h5"):
            with h5py.File(path, "r+") as file:
                damage(file)
        ended = tiled.hpcreco(
            2,
            "train",
            "ghost3d_tiny",
            f"--set=data.data_path={name}",
            f"--set=output_dir=out_{name}",
            check=False,
        )
        assert ended.code not in (0, 75), (
            name
        )  # which other code is up to mpiexec when it ends the other rank
        assert any(word in ended.err for word in expected.split("|")), (name, ended.err)
        assert f"{name}/" in ended.err, ended.err
    (tiled.folder / "empty").mkdir()
    ended = tiled.hpcreco(1, "train", "ghost3d_tiny", "--set=data.data_path=empty", check=False)
    assert ended.code in (1, 2)
    assert "empty" in ended.err
    ended = tiled.hpcreco(1, "train", "ghost3d_tiny", "--set=optimiser.lr=1", check=False)
    assert ended.code == 2
    assert "did you mean 'optimizer'" in ended.err


@pytest.mark.parametrize(
    "path", sorted((config.shipped_configs() / "protodune").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_config_runs(trained, path, tmp_path):
    """One epoch, or inference, of every shipped ProtoDUNE config on the tiny data, whatever paths it names."""
    raw = config.read(path)
    sets = [f"--set=output_dir={tmp_path / 'out'}", "--set=train.n_epochs=1"]
    if "data_path" not in raw.get("data", {}):  # events that are made
        trained.hpcreco(1, "train", path, *sets)
        return
    paths = raw["data"]["data_path"]
    many = isinstance(paths, list)
    folder = "xy_charge" if raw["model"]["name"] == "cellnet_charge" else "xy"
    sets.append("--set=data.data_path=" + (f"[{', '.join([folder] * len(paths))}]" if many else folder))
    if raw["train"].get("init_from") is not None and path.stem != "charge_transfer_tiny":
        sets.append("--set=train.init_from=null")  # a run that is not here
    for key, span in (("train_i", "[1, 2]"), ("inference_i", "[10, 10]")):
        if raw["data"].get(key) is not None:
            sets.append(f"--set=data.{key}=" + (f"[{', '.join([span] * len(paths))}]" if many else span))
    if raw["data"].get("train_i") is not None:
        trained.hpcreco(1, "train", path, *sets)
        assert checkpoint.found(tmp_path / "out")
    else:  # inference needs a network of the config's own shape: trained with the same config, given files to train on
        span = "[[1, 1], null]" if many else "[1, 1]"
        trained.hpcreco(1, "train", path, *sets, f"--set=data.train_i={span}")
        trained.hpcreco(1, "infer", path, *sets, "--set=train.start_epoch=0")
        assert list((tmp_path / "out").rglob("*yinf*.h5"))
