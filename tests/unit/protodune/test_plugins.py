"""Data without files, other networks, classes of a user's own; and the plateau trainer on the real loop."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from hpcreco import cli, config, experiment, shards
from hpcreco.config import ConfigError
from hpcreco.data.batch import Ref
from hpcreco.data.dataset import EventDataset
from hpcreco.experiments import protodune
from hpcreco.experiments.protodune.dialect import normalise
from hpcreco.experiments.protodune.plugins import data, model
from hpcreco.experiments.protodune.plugins.task import read
from hpcreco.experiments.protodune.settings import Named
from hpcreco.train import checkpoint, summary

USERS = {
    "experiment": "protodune",
    "data": {"name": "user_classes:Lines", "events": 8, "batch_size": 4},
    "model": {"name": "user_classes:RowNet", "width": 3},
    "loss": {"name": "user_classes:Squared", "factor": 2.0},
    "optimizer": {"name": "Adam", "lr": 0.05},
    "train": {"n_epochs": 3},
    "metrics": {"above": "user_classes:share_above_half"},
}


def written(tmp_path, raw, name="config"):
    """`raw` as a file, with an output_dir of its own."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps({"output_dir": str(tmp_path / name), **raw}))
    return str(path)


def train(path, *flags):
    assert cli.main(["train", path, *flags]) == 0


# ------------------------------------------------------------------------------------------ made events


@pytest.mark.parametrize(
    "named", [Named(name="random"), Named(name="random_sparse", arguments={"voxels": 60})]
)
def test_events_are_named_by_seed_number_and_draw(named):
    raw = {"output_dir": "out", "data": {"name": named.name, **named.arguments}, "model": "cnn"}
    raw |= {"trainer": "hello"} if named.name == "random" else {"model": {"name": "cellnet_binary"}}
    raw |= {"loss": "MSELoss", "optimizer": "SGD", "train": {"n_epochs": 1}}

    def content(part, number, draw, seed=0):
        run = normalise({**raw, "seed": seed})
        index = experiment.find("protodune").load("files")(run, part)
        made = EventDataset(index, read(run, part == "train"), seed)
        (table,) = made.event(Ref(0, number), draw).tables.values()
        return np.concatenate([np.ravel(array) for array in table.values()])

    first = content("train", 1, 0)
    assert np.array_equal(first, content("train", 1, 0))
    for other in (("train", 2, 0), ("train", 1, 1), ("validation", 1, 0), ("train", 1, 0, 7)):
        assert not np.array_equal(first, content(*other)), other


def test_random_sparse_events_are_what_they_say():
    source = data.build(Named(name="random_sparse", arguments={"voxels": 200, "spatial_size": [16, 16, 16]}))
    event = source.event("train", 0, np.random.default_rng(1))
    coords, labels = event["coords"], event["labels"][:, 0] > 0
    assert len(np.unique(coords, axis=0)) == len(coords) >= 200
    assert coords.min() >= 0
    assert coords.max() < 16
    assert 0.2 <= labels.mean() < 0.4
    spread = event["features"].std(axis=1)
    assert spread[labels].max() < 1e-6 < spread[~labels].min()


def test_an_index_of_made_events_counts_like_one_of_files():
    index = shards.made({"a": 3, "b": 2}, "recipe", ("voxels",))
    assert (index.n_shards, index.n_events, index.locate(3)) == (2, 5, (1, 0))
    with shards.Pool(index).using(1) as made:
        assert (made.path, made.event_ids.tolist()) == ("b", [0, 1])
    assert index.digest != shards.made({"a": 3, "b": 2}, "another", ("voxels",)).digest


# ------------------------------------------------------------------------------------------ smoke tests


def test_hello_greets_and_learns(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    train("hello")
    assert "hello from rank 0 of 1 on " in capfd.readouterr().out
    rows = summary.read(tmp_path / "runs/hello/summaries.csv")
    assert rows[-1]["valid_accuracy"] > 0.9  # 1/3 by chance


def test_cnn_learns_and_infers(tmp_path):
    flags = [f"--set=output_dir={tmp_path / 'cnn'}", "--set=data.n_train=64", "--set=data.n_valid=16"]
    train("cnn", *flags, "--set=optimizer.lr=0.01")
    row = summary.read(tmp_path / "cnn/summaries.csv")[-1]
    assert row["valid_accuracy"] == row["valid_acc"] > 0.9  # 1/4 by chance
    assert cli.main(["infer", "cnn", *flags, "--set=optimizer.lr=0.01"]) == 0
    (path,) = (tmp_path / "cnn/inference").glob("*.h5")
    assert not shards.validate(path, experiment.find("protodune").schema("classes"))
    with shards.Shard(path) as said:
        right = [said.read(k, "images")["class"] == said.read(k, "images")["label"] for k in range(16)]
        assert np.mean(right) == row["valid_accuracy"]


def test_random_sparse_learns_and_infers_what_it_validated(tmp_path):
    flags = [f"--set=output_dir={tmp_path / 'sparse'}", "--set=data.n_train=16", "--set=train.n_epochs=3"]
    flags += ["--set=data.voxels=150", "--set=model.nChannels=4"]
    train("random_sparse", *flags)
    row = summary.read(tmp_path / "sparse/summaries.csv")[-1]
    assert row["valid_auc_pe"] > 0.5  # 0.2 by chance
    (during,) = (tmp_path / "sparse/inference").glob("epoch2-*.h5")
    with shards.Shard(during) as stored:
        digest = stored.digest
    during.unlink()
    assert cli.main(["infer", "random_sparse", *flags]) == 0
    with shards.Shard(during) as made:
        assert made.digest == digest


def test_stopped_equals_straight_without_files(tmp_path):
    """Made events of the same epoch are the same, whichever process makes them."""
    path = written(tmp_path, USERS)
    train(path, f"--set=output_dir={tmp_path / 'straight'}")
    train(path, f"--set=output_dir={tmp_path / 'parts'}", "--set=train.n_epochs=1")
    train(path, f"--set=output_dir={tmp_path / 'parts'}", "--resume")
    a, b = (checkpoint.load_latest(tmp_path / name)[1] for name in ("straight", "parts"))
    assert checkpoint.digest(a["model"]) == checkpoint.digest(b["model"])


# ------------------------------------------------------------------------------------------ users' own classes


def test_users_classes_train_and_their_metric_is_a_column(tmp_path):
    train(written(tmp_path, {**USERS, "train": {"n_epochs": 12}}))
    rows = summary.read(tmp_path / "config/summaries.csv")
    assert rows[-1]["valid_loss"] < 0.5 * rows[0]["train_loss"]
    assert 0.2 < rows[-1]["valid_above"] < 0.8


def test_a_users_images_go_through_cnn(tmp_path):
    changes = {
        "data": {"name": "user_classes:Pixels"}, "loss": {"name": "CrossEntropyLoss"}, "metrics": {},
        "model": {"name": "cnn", "input_shape": [1, 4, 4], "conv_sizes": [2], "fc_sizes": []},
    }  # fmt: skip
    train(written(tmp_path, {**USERS, **changes}))
    assert summary.read(tmp_path / "config/summaries.csv")[-1]["valid_loss"] < 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "randm"}}, "did you mean 'random'"),
        ({"data": {"name": "random_sparse", "n_trian": 3}}, "data.n_trian: RandomSparse has no such argument; did"),
        ({"data": {"name": "random_sparse", "voxels": 10**6}}, "half of the 32768 of the grid"),
        ({"data": {"name": "random_sparse", "n_train": 0, "n_valid": 0}}, "holds no events"),
        ({"data": {"name": "user_classes:Nothing"}}, "has no 'Nothing'"),
        ({"data": {"name": "user_classes:RowNet"}}, "has no method size()"),
        ({"data": {"name": "random"}, "model": {"name": "cellnet_binary"}}, "cnn takes these"),
        ({"data": {"name": "random_sparse"}, "model": {"name": "cnn"}}, "data.name: random makes images"),
        ({"trainer": {"name": "hello", "to": "all"}}, "hello takes no arguments"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_remedy(changes, said):
    with pytest.raises(ConfigError) as error:
        normalise({"output_dir": "out", **USERS, **changes})
    assert said in str(error.value)


def test_what_recognises_a_config_without_files():
    for raw in ({"trainer": "hello"}, {"data": {"name": "random"}, "model": {"name": "cnn"}}):
        assert experiment.recognise(raw).name == "protodune"
        assert set(protodune._MADE) == set(data.DATA_SETS)


# ------------------------------------------------------------------------------------------ torchvision


def images(**changes):
    return normalise({"trainer": "hello", "model": {"name": "resnet18"}, **changes})


def test_without_torchvision_its_names_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ConfigError, match="torchvision, which may have it, cannot be imported.*install"):
        model.build(images().settings)


def test_torchvisions_models_are_made_by_name(monkeypatch):
    """Against a stand-in with torchvision's two functions, or torchvision itself where it is installed."""
    package, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    made = {}
    models.list_models = lambda: ["resnet18"]
    models.get_model = lambda name, **arguments: made.update(arguments) or nn.Linear(1, 1)
    package.models = models
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    model.build(images().settings)
    assert made == {"num_classes": 3}
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        model.build(images(model={"name": "resnet81"}).settings)


def test_a_real_model_of_torchvision_trains(tmp_path):
    pytest.importorskip("torchvision", reason="needs torchvision (pip install torchvision, to fit torch)")
    small = ["--set=data.n_train=8", "--set=data.n_valid=4", "--set=data.input_shape=[3,32,32]"]
    train(
        "cnn",
        *small,
        "--set=model={name: resnet18}",
        f"--set=output_dir={tmp_path}",
        "--set=train.n_epochs=1",
    )


def test_cnn_refuses_images_that_its_poolings_would_use_up():
    run = images(
        data={"name": "random", "input_shape": [1, 4, 4]}, model={"name": "cnn", "conv_sizes": [2, 2, 2]}
    )
    with pytest.raises(ConfigError, match="3 conv_sizes halve an image that often; 4 x 4 is too small"):
        model.build(run.settings)


def test_cnn_has_the_layers_its_sizes_ask_for():
    network = model.CNN((3, 16, 12), 5, conv_sizes=(4, 6), fc_sizes=(7,), dropout=0.5)
    shapes = [tuple(p.shape) for p in network.parameters() if p.dim() > 1]
    assert shapes == [(4, 3, 3, 3), (6, 4, 3, 3), (7, 6 * 4 * 3), (5, 7)]
    assert network(torch.zeros(2, 3, 16, 12)).shape == (2, 5)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5]


# ------------------------------------------------------------------------------------------ plateau

PLATEAU = {
    **USERS,
    "trainer": {"name": "schedule_plateau", "metric": "above", "patience": 0, "factor": 0.5, "threshold": 10},
    "train": {"n_epochs": 5},
}


def rates(folder):
    return [row["lr"] for row in summary.read(folder / "summaries.csv")]


def test_plateau_resumed_across_a_reduction_equals_straight(tmp_path):
    """A threshold of 10 is never reached, so every epoch but the first halves the rate."""
    path = written(tmp_path, PLATEAU)
    train(path, f"--set=output_dir={tmp_path / 'straight'}")
    for n in (1, 2, 3, 5):  # stopped before, at and after a reduction
        train(path, f"--set=output_dir={tmp_path / 'parts'}", f"--set=train.n_epochs={n}", "--resume", "auto")
    assert rates(tmp_path / "straight") == pytest.approx([0.05, 0.05, 0.025, 0.0125, 0.00625])
    assert rates(tmp_path / "parts") == rates(tmp_path / "straight")
    a, b = (checkpoint.load_latest(tmp_path / name)[1] for name in ("straight", "parts"))
    assert a["schedule"] == b["schedule"]
    assert checkpoint.digest(a["model"]) == checkpoint.digest(b["model"])


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"metric": "abov"}, "no column 'abov'; it will have loss, above"),
        ({"metric": "loss"}, "add `mode: min`"),
        ({}, "add `mode: min`"),
        ({"metric": "above", "patiance": 1}, "did you mean 'patience'"),
    ],
)
def test_a_plateau_that_could_not_act_is_refused_before_the_first_epoch(tmp_path, trainer, said, capsys):
    raw = {**USERS, "trainer": {"name": "schedule_plateau", **trainer}}
    assert cli.main(["train", written(tmp_path, raw)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "config/summaries.csv").exists()


def test_a_plateau_without_validation_needs_a_column_of_training(tmp_path, capsys):
    raw = {
        **USERS,
        "data": {"name": "random_sparse", "n_valid": 0},
        "model": {"name": "cellnet_binary"},
        "metrics": {},
    }
    raw["trainer"] = {"name": "schedule_plateau", "metric": "auc_pe"}
    assert cli.main(["train", written(tmp_path, raw)]) == 2
    assert "will have train_loss, train_balanced_accuracy" in capsys.readouterr().err


def test_keys_without_effect_are_one_line():
    run = normalise(config.override({"output_dir": "out", **PLATEAU}, ["trainer.verbose=true"]))
    assert run.notes == (
        "keys without effect: trainer.verbose (the summary has the learning rate of every epoch)",
    )
    assert normalise({"output_dir": "out", **USERS}).notes == ()
