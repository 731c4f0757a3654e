"""The nine config files of the original program's users, unchanged, on data where they look for it."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco import cli, config
from hpcreco.experiments.protodune.dialect import normalise
from hpcreco.train import checkpoint, summary

from .conftest import toy_event, write_xy

#: the networks of these files take minutes a step at their full width
SMALL = ("--set=model.nChannels=2", "--set=model.reps=1")
TRAINS = ("ghost3d", "ghost2", "ghost3d_2", "ghost_downsample", "ghost_schedule", "charge")


@pytest.fixture
def user(public_data, tmp_path, monkeypatch):
    """``user(name)`` -> (path of the config, its raw content, $SCRATCH with an xy file at the ends of its ranges)."""
    monkeypatch.setenv("SCRATCH", str(tmp_path))

    def make(name):
        path = public_data / "user-configs" / f"{name}.yaml"
        raw = config.load(str(path))
        sources = normalise(raw).settings.sources
        for part in (sources.train, sources.validation):
            for folder, wanted in zip(sources.paths, part or (), strict=False):
                folder.mkdir(parents=True, exist_ok=True)
                for index in sorted(set(wanted))[:1] if wanted else ():
                    file = folder / f"batch0-reco_Mu_{index:03d}_xy-TPC1.h5"
                    events = [toy_event(np.random.default_rng([index, k]), 60, 20) for k in range(2)]
                    write_xy(file, events, index=index)
        return str(path), raw

    return make


def output(raw):
    return normalise(raw).output_dir


@pytest.mark.parametrize("name", TRAINS)
def test_it_trains_for_an_epoch(name, user):
    path, raw = user(name)
    assert cli.main(["train", path, "--set=train.n_epochs=1", *SMALL]) == 0
    (row,) = summary.read(output(raw) / "summaries.csv")
    assert np.isfinite([row["train_loss"], row["valid_loss"]]).all()
    assert all(0 <= row[f"valid_{column}"] <= 1 for column in raw.get("metrics", {}))
    assert checkpoint.found(output(raw))
    assert list((output(raw) / "inference").glob("epoch0-*.h5"))
    log = (output(raw) / "train.log").read_text()
    assert log.count("keys without effect") == len(normalise(raw).notes) == 0


def test_inference_with_the_network_of_ghost3d(user, capfd):
    """ghost_inf.yaml has the output_dir of ghost3d.yaml, and the loss and optimizer that it does not need."""
    path, _ = user("ghost3d")
    assert cli.main(["train", path, "--set=train.n_epochs=1", "--set=store_inference=false", *SMALL]) == 0
    path, raw = user("ghost_inf")
    capfd.readouterr()
    assert cli.main(["train", path, "--resume", "-v", *SMALL]) != 0
    assert "24" in capfd.readouterr().err, "start_epoch of the file: it is not there"
    assert cli.main(["train", path, "--resume", "-v", "--set=train.start_epoch=0", *SMALL]) == 0
    assert list((output(raw) / "inference").glob("epoch0-batch0-reco_Mu_009_yinf-TPC1.h5"))
    said = capfd.readouterr().out
    assert "keys without effect: trainer, optimizer, train.n_epochs (nothing is trained" in said


def test_a_loss_that_is_gone_is_refused_with_what_takes_its_place(user, capfd):
    path, raw = user("ghost3d_3")
    assert cli.main(["train", path, "--set=train.n_epochs=1", *SMALL]) == 2
    said = capfd.readouterr().err
    assert "WeightedBCELoss" in said
    assert "ChargeWeightedBCELoss takes the same negative_weight" in said
    remedy = ["--set=loss.name=ChargeWeightedBCELoss", "--set=train.n_epochs=1"]
    assert cli.main(["train", path, *remedy, *SMALL]) == 0
    assert np.isfinite(summary.read(output(raw) / "summaries.csv")[0]["valid_loss"])


def test_the_charge_network_infers_with_its_loss_over_coarse_cells(user, capfd):
    """charge_downsample.yaml only infers; the network it wants comes from a training with the same file."""
    path, raw = user("charge_downsample")
    training = ["--set=data.train_i=[701,701]", "--set=train.n_epochs=1", "--set=train.transfer=false"]
    assert cli.main(["train", path, *training, *SMALL]) == 0
    assert np.isfinite(summary.read(output(raw) / "summaries.csv")[0]["train_loss"])
    capfd.readouterr()
    assert cli.main(["train", path, "--resume", *SMALL]) == 0
    assert "keys without effect:" in capfd.readouterr().out
    assert list((output(raw) / "inf_train").glob("epoch0-*.h5"))


def test_the_plateau_of_ghost_schedule_acts(user):
    path, raw = user("ghost_schedule")
    acts = ["--set=trainer.patience=0", "--set=trainer.threshold=10", "--set=train.n_epochs=3"]
    assert cli.main(["train", path, *acts, *SMALL]) == 0
    rates = [row["lr"] for row in summary.read(output(raw) / "summaries.csv")]
    assert rates == pytest.approx([0.02, 0.02, 0.004])
