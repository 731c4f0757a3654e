"""From a ghost net to a charge net in one command: what arrives, what is fresh, and what the user is told."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml

from hpcreco import cli
from hpcreco.train import checkpoint, summary

MODEL = {
    "spatial_size": [64, 64, 64],
    "nChannels": 4,
    "nStrides": 2,
    "downsample_t": [2, 2],
    "momentum": 0.5,
}


@pytest.fixture
def configs(tmp_path, toy_run):
    """A trained ghost net, the config of a charge net, and how to change and run it."""
    folder = str(toy_run().xy[0].parent)
    common = {"data": {"data_path": folder, "train_i": [0, 9]}, "optimizer": {"name": "Adam", "lr": 0.01}}
    ghost = {
        **common, "output_dir": str(tmp_path / "ghost"), "model": {"name": "cellnet_binary", **MODEL},
        "loss": "BCELoss", "data": {**common["data"], "inference_i": [0, 9], "threshold": 1000},
        "train": {"n_epochs": 2},
    }  # fmt: skip
    charge = {
        **common, "output_dir": str(tmp_path / "charge"), "loss": "MSELoss",
        "model": {"name": "cellnet_charge", "nHiddenLayers": 1, **MODEL}, "train": {"n_epochs": 0},
        "data": {**common["data"], "normalise_labels": {"kind": "linear", "scale": 10000}},
    }  # fmt: skip

    def run(name, raw, *arguments, **train):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**raw, "train": {**raw["train"], **train}}))
        return cli.main(["train", str(path), *arguments])

    assert run("ghost", ghost) == 0
    return tmp_path, ghost, charge, run


def weights(folder, epoch):
    return checkpoint.load(checkpoint.of_epoch(folder, epoch))


def test_the_backbone_arrives_the_head_and_the_optimizer_are_fresh(configs, capsys):
    tmp_path, _, charge, run = configs
    frozen = {**charge, "model": {**charge["model"], "freeze": True}}
    assert run("charge", frozen, n_epochs=1, init_from=f"{tmp_path / 'ghost'}@best") == 0
    said = capsys.readouterr()
    text = said.out + said.err + (tmp_path / "charge/train.log").read_text()
    assert "as initialised: regression.0.bias, regression.0.weight, regression.2.bias" in text
    assert "offered and not used: head.bias, head.weight" in text
    donor, made = weights(tmp_path / "ghost", 1), weights(tmp_path / "charge", 0)
    kept = {name for name in donor["model"] if name.startswith("backbone.")}
    assert kept == {name for name in made["model"] if name.startswith("backbone.")}
    assert all(torch.equal(donor["model"][name], made["model"][name]) for name in kept)
    # the optimizer knows the head alone, and only the steps of this run
    steps = {float(state["step"]) for state in made["optimizer"]["state"].values()}
    assert steps == {float(made["progress"]["step"])}
    assert [row["epoch"] for row in summary.read(tmp_path / "charge/summaries.csv")] == [0]


def test_nothing_in_common_is_an_error(configs, capsys):
    tmp_path, _, charge, run = configs
    other = {**charge, "model": {**charge["model"], "nChannels": 5, "nStrides": 1}}
    assert run("other", other, n_epochs=1, init_from=str(tmp_path / "ghost")) == 1
    assert "nothing in it matches" in capsys.readouterr().err


def test_the_legacy_route_copies_a_checkpoint_and_counts_on(configs, capsys):
    """`transfer: true` and --resume, the donor's checkpoint copied into output_dir as the original wanted it."""
    tmp_path, _, charge, run = configs
    folder = checkpoint.folder(tmp_path / "charge")
    folder.mkdir(parents=True)
    shutil.copy(checkpoint.of_epoch(tmp_path / "ghost", 1), folder)
    assert run("charge", charge, "--resume", transfer=True, n_epochs=2) == 2
    assert "init_from" in capsys.readouterr().err  # the donor's epochs count: none are left
    assert run("charge", charge, "--resume", transfer=True, n_epochs=3) == 0
    assert weights(tmp_path / "charge", 2)["progress"]["epoch"] == 3
    rows = summary.read(tmp_path / "charge/summaries.csv")
    assert [row["epoch"] for row in rows] == [2]
    # the run's own checkpoint now is the last: it is resumed, optimizer and all, not transferred again
    before = weights(tmp_path / "charge", 2)["progress"]["step"]
    assert run("charge", charge, "--resume", transfer=True, n_epochs=4) == 0
    again = weights(tmp_path / "charge", 3)
    assert again["progress"]["step"] == 2 * before
    assert {float(state["step"]) for state in again["optimizer"]["state"].values()} == {2.0 * before}


def test_the_legacy_route_without_copying(configs, capsys):
    tmp_path, _, charge, run = configs
    assert run("charge", charge, "--resume", transfer=True, n_epochs=1) == 2
    assert "train.init_from=RUN" in capsys.readouterr().err
    donor = str(tmp_path / "ghost")
    assert run("charge", charge, "--resume", transfer=True, n_epochs=1, init_from=donor) == 0
    assert weights(tmp_path / "charge", 0)["progress"]["epoch"] == 1
