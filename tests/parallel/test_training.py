"""Training on real ranks with the toy experiment: P ranks equal one, resumed equals straight, kills lose nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from toy_two_tables import write_shard

from hpcreco import shards
from hpcreco.train import checkpoint, summary
from hpcreco.train.sums import Sums

TOYS = Path(__file__).parent.parent / "toys"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shards of the toy experiment and a config that trains on them for 24 steps."""
    folder = tmp_path_factory.mktemp("toy")
    train = [str(write_shard(folder / f"train{i}.h5", 11, i)) for i in range(5)]
    valid = [str(write_shard(folder / f"valid{i}.h5", 7, 50 + i)) for i in range(2)]
    config = {
        "experiment": "toy_two_tables:EXPERIMENT",
        "output_dir": "set per test",
        "iterations": 24,
        "steps": {"mode": "events", "size": 8},
        "validate_every": "4 steps",
        "save": "3 steps",
        "settings": {"files": train, "validation": valid},
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def started(data, mpiexec):
    """``started(out, ranks, *flags, env=..., key=value)`` trains into `out`; how the ranks ended."""

    def run(out, ranks, *flags, env=None, check=True, **keys):
        sets = [
            f"--set={key.replace('__', '.')}={value}" for key, value in {"output_dir": out, **keys}.items()
        ]
        arguments = ["-m", "hpcreco", "train", data, *sets, *flags]
        return mpiexec(ranks, arguments, env={"PYTHONPATH": str(TOYS), **(env or {})}, check=check)

    return run


@pytest.fixture
def train(started, tmp_path):
    """``train(name, ranks, *flags, env=...)`` -> (how the ranks ended, output folder)."""

    def run(name, ranks, *flags, **more):
        return started(tmp_path / name, ranks, *flags, **more), tmp_path / name

    return run


@pytest.fixture(scope="module")
def straight(started, tmp_path_factory):
    """``straight(ranks, key=value)``: the folder of an undisturbed training, made once; it is not to be changed."""
    made = {}

    def run(ranks, **keys):
        name = "-".join(map(str, [ranks, *keys.values()]))
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"straight-{name}")
            started(made[name], ranks, **keys)
        return made[name]

    return run


@pytest.fixture
def finished(straight, tmp_path):
    """``finished(name, ranks)``: a folder of that name with a finished training in it, for `train` to go on with."""
    return lambda name, ranks: Path(shutil.copytree(straight(ranks), tmp_path / name))


def final(out: Path) -> dict:
    return checkpoint.load_latest(out)[1]


def rows(out: Path) -> list[dict[str, str]]:
    """Summary rows as text, without the columns that depend on the clock."""
    lines = (out / "summaries.csv").read_text().splitlines()
    header = lines[0].split("\t")
    return [
        {k: v for k, v in zip(header, line.split("\t"), strict=True) if k not in summary.TIMING}
        for line in lines[1:]
    ]


def largest_difference(a: dict, b: dict) -> float:
    """Over all weights, relative to the largest entry of each."""
    return max(
        float((a["model"][key] - b["model"][key]).abs().max() / a["model"][key].abs().max())
        for key in a["model"]
    )


@pytest.mark.parametrize(
    ("ranks", "precision", "tolerance"),
    [(2, "float64", 1e-10), (3, "float64", 1e-10), (4, "float64", 1e-10), (3, "float32", 1e-4)],
)
def test_ranks_equal_one_rank(train, straight, backend, ranks, precision, tolerance):
    """The same global steps on several ranks, of which some have nothing to do."""
    alone = straight(1, precision=precision, steps__size=3)
    _, out = train("run", ranks, "--backend", backend, precision=precision, steps__size=3)
    assert largest_difference(final(alone), final(out)) < tolerance
    for a, b in zip(rows(alone), rows(out), strict=True):
        assert a["events"] == b["events"]
        assert float(a["valid_loss"]) == pytest.approx(float(b["valid_loss"]), rel=max(tolerance, 2e-6))


def test_micro_batches_change_nothing(train, straight):
    """A memory budget that cuts each rank's share of a step into pieces gives the same weights."""
    _, cut = train("cut", 2, precision="float64", steps__micro_cost=9)
    assert largest_difference(final(straight(2, precision="float64")), final(cut)) < 1e-10


def test_resumed_equals_straight_bit_for_bit(train, straight):
    """SIGTERM at random steps in mid-epoch, on different ranks, resumed each time, at 3 ranks with micro-batches."""
    rng, cut = random.Random(1), {"steps__micro_cost": 9}
    for step in sorted(rng.sample(range(1, 17, 2), 4)):  # a signal is seen in the next step, which is taken
        fault = {"TOY_TERM": f"{rng.randrange(3)}:{step}"}
        ended, out = train("stopped", 3, "--resume", "auto", env=fault, check=False, **cut)
        assert ended.code == 75, ended.err
    ended, out = train("stopped", 3, "--resume", "auto", **cut)
    a, b = final(straight(3, **cut)), final(out)
    for part in ("model", "optimizer", "schedule", "progress"):
        assert checkpoint.digest(a[part]) == checkpoint.digest(b[part]), part
    assert rows(straight(3, **cut)) == rows(out)


def test_resuming_on_other_ranks_agrees_to_rounding(train, straight):
    ended, out = train("moved", 3, precision="float64", env={"TOY_TERM": "1:9"}, check=False)
    assert ended.code == 75
    train("moved", 2, "--resume", precision="float64")
    assert largest_difference(final(straight(2, precision="float64")), final(out)) < 1e-10


def test_a_finished_run_is_not_trained_again(train, finished):
    out = finished("done", 2)
    before = {p: p.stat().st_mtime_ns for p in checkpoint.folder(out).iterdir()}
    ended, _ = train("done", 2, "--resume", "auto")
    assert "nothing to do" in ended.out
    assert before == {p: p.stat().st_mtime_ns for p in checkpoint.folder(out).iterdir()}


def test_training_over_checkpoints_is_refused(train, finished):
    out = finished("run", 2)
    kept = checkpoint.digest(final(out)["model"])
    ended, _ = train("run", 2, check=False)
    assert ended.code == 2
    assert ended.err.count("--overwrite") == 1  # said once, not once a rank
    assert checkpoint.digest(final(out)["model"]) == kept
    ended, _ = train("run", 2, "--overwrite", iterations=4)
    assert final(out)["progress"]["step"] == 4


def test_resume_at_an_earlier_epoch_repeats_it_exactly(train, finished):
    out = finished("run", 2)
    before = rows(out)
    train("run", 2, "--resume", "2")
    assert rows(out) == before
    assert (out / "summaries.csv.bak").is_file()
    moved = list(checkpoint.folder(out).glob("before-resume-*/*.pth.tar"))
    assert moved  # the later checkpoints were set aside, not lost


def test_the_command_line_beats_start_epoch_with_a_notice(train, finished):
    finished("run", 1)
    ended, out = train("run", 1, "--resume", start_epoch=1)
    assert "resuming after checkpoint_001" in ended.out
    ended, out = train("run", 1, "--resume", "2", start_epoch=1)
    assert "--resume 2 is used, not start_epoch: 1" in ended.out
    assert [row["epoch"] for row in rows(out)] == [str(epoch) for epoch in range(7)]
    ended, _ = train("run", 1, "--resume", "40", check=False)
    assert ended.code == 1
    assert "epochs there: 0, 1, 2" in ended.err


def test_another_config_is_refused_by_key(train, finished):
    finished("run", 1)
    ended, _ = train("run", 1, "--resume", check=False, settings__lr=0.2)
    assert ended.code == 2
    assert "settings.lr: 0.05 -> 0.2" in ended.err
    train("run", 1, "--resume", "--lenient", settings__lr=0.2, iterations=28)


def test_a_kill_while_saving_leaves_a_whole_checkpoint(straight, data, tmp_path):
    """SIGKILL at many moments of a run that saves at every step; what is left loads and leads to the same end."""
    out = tmp_path / "killed"
    command = ["train", data, "--resume", "auto", f"--set=output_dir={out}", "--set=save=1 steps"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOY_SLEEP": "0.02"}
    environment["PYTHONPATH"] = f"{TOYS}:{environment.get('PYTHONPATH', '')}"
    words = [sys.executable, Path(__file__).parent / "killed_while_saving.py", out, *command]
    ended = subprocess.run(
        list(map(str, words)), env=environment, capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, ended.stderr
    saved = re.findall(r"^saved when killed: (\S+)$", ended.stdout, re.M)
    assert len(set(saved)) > 3, "the kills came before anything was saved, or after everything was"
    assert checkpoint.digest(final(straight(1))["model"]) == checkpoint.digest(final(out)["model"])
    assert rows(straight(1)) == rows(out)
    assert not list(out.rglob(".*.part-*"))  # what the kills left half-written is swept away


def test_losses_that_are_not_finite_end_all_ranks_with_one_message(train, finished):
    finished("wild", 2)
    ended, out = train("wild", 2, "--resume", "--lenient", check=False, settings__lr=1e19, iterations=28)
    assert ended.code == 1
    assert ended.err.count("grad_clip") == 1
    assert torch.isfinite(final(out)["model"]["points.weight"]).all()


def test_inference_repeats_the_last_validation(train, data, mpiexec):
    """The sums in the yinf files of an experiment the core has never heard of add up to the summary's last row."""
    _, out = train("run", 2, store="{every_epochs: 1, every_samples: 1, outdir: stored}")
    arguments = ["-m", "hpcreco", "infer", data, f"--set=output_dir={out}"]
    mpiexec(2, arguments, env={"PYTHONPATH": str(TOYS)})
    made = sorted((out / "inference").glob("epoch6-*.h5"))
    assert len(made) == 2
    total = Sums()
    for path in made:
        with shards.Shard(path) as yinf, shards.Shard(out / "stored" / path.name) as stored:
            sums = yinf.attributes["sums"]
            values = {name: torch.tensor(value) for name, value in sums["values"].items()}
            total.merge(Sums.from_state({"values": values, "coefficients": sums["coefficients"]}))
            assert stored.attributes["checkpoint_digest"] == yinf.attributes["checkpoint_digest"]
            for event in range(yinf.n_events):  # batches are cut otherwise, so the last bits may differ
                a, b = yinf.read(event, "points"), stored.read(event, "points")
                assert a["prediction"] == pytest.approx(b["prediction"], rel=1e-5, abs=1e-6)
    assert total.loss() == pytest.approx(float(rows(out)[-1]["valid_loss"]), abs=2e-6)


def test_weights_of_another_run_start_a_new_one(train, straight):
    donor = straight(1)
    ended, out = train("taker", 1, init_from=f"{donor}@best", iterations=4)
    assert "tensors taken" in ended.out
    assert "as initialised" not in ended.out
    assert rows(out)[0]["epoch"] == "0"
