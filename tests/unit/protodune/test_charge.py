"""Charge regression: metrics by their definitions, squeezing and its inverse, what the task does with electrons."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco import shards
from hpcreco.config import ConfigError
from hpcreco.data.batch import Event, Ref, collate
from hpcreco.experiments.protodune import dataset, scaling
from hpcreco.experiments.protodune.dialect import normalise
from hpcreco.experiments.protodune.objective import charge
from hpcreco.experiments.protodune.settings import Normalise
from hpcreco.experiments.protodune.task import TASK
from hpcreco.shards import Shard
from hpcreco.train.state import select_trainable
from hpcreco.train.task import Context, Pace

CONTEXT = Context("main", 0, True, torch.Generator())


def make_run(folder="xy", out="out", data=None, model=None, loss="MSELoss", **more):
    raw = {
        "output_dir": str(out),
        "data": {"data_path": str(folder), "train_i": [0, 9], "inference_i": [0, 9], **(data or {})},
        "model": {
            "name": "cellnet_charge", "spatial_size": [64, 64, 64], "nChannels": 4, "nStrides": 2,
            "downsample_t": [2, 2], "momentum": 0.5, **(model or {}),
        },
        "loss": loss,
        "optimizer": {"name": "Adam", "lr": 0.01},
        "train": {"n_epochs": 1},
    }  # fmt: skip
    return normalise(raw | more)


def batch_of(run, path, events):
    read = dataset.reader(run, True)
    with Shard(path) as shard:
        made = [read(shard, event, np.random.default_rng(0)) for event in events]
    return collate(made, [Ref(0, k) for k in events], [1.0] * len(events))


def test_metrics_are_their_definitions_and_add():
    rng = np.random.default_rng(0)
    offsets = torch.tensor([0, 50, 50, 120, 200])  # the second event is empty
    labels = torch.from_numpy(rng.exponential(9000, (200, 1)) * (rng.random((200, 1)) < 0.3))
    found = labels * 1.1 + torch.from_numpy(rng.normal(0, 500, (200, 1)))
    row = charge.columns(charge.count(found, labels, offsets))
    assert tuple(row) == charge.COLUMNS
    r = np.array(
        [float(found[a:b].sum() / labels[a:b].sum()) - 1 for a, b in ((0, 50), (50 + 0, 120), (120, 200))]
    )
    assert row["charge_bias"] == pytest.approx(float(found.sum() / labels.sum()) - 1)
    assert row["event_bias"] == pytest.approx(r.mean())
    assert row["event_rms"] == pytest.approx(r.std(), rel=1e-6)
    error = (found - labels).numpy()
    assert row["voxel_rms"] == pytest.approx((error**2).mean() ** 0.5)
    assert row["voxel_explained"] == pytest.approx(1 - (error**2).mean() / labels.numpy().var())
    one = charge.count(found[:50], labels[:50], torch.tensor([0, 50]))
    two = charge.count(found[50:], labels[50:], torch.tensor([0, 0, 70, 150]))
    assert charge.columns({name: one[name] + two[name] for name in one}) == pytest.approx(row)


def test_a_prediction_that_overflows_is_no_crash():
    found = torch.tensor([[float("inf")], [float("-inf")], [1.0]])
    sums = charge.count(found, torch.ones(3, 1), torch.tensor([0, 2, 3]))
    assert float(sums["r_histogram"].sum()) == 2


def test_the_resolution_is_the_width_of_a_gaussian():
    r = np.random.default_rng(1).normal(0.03, 0.08, 20_000)
    bins = ((r - charge.LOW) * charge.BINS / (charge.HIGH - charge.LOW)).astype(int) + 1
    assert charge.half_width(np.bincount(bins, minlength=charge.BINS + 2)) == pytest.approx(0.08, rel=0.02)
    assert np.isnan(charge.half_width(np.zeros(charge.BINS + 2)))


@pytest.mark.parametrize("kind", ["linear", "asinh", "log"])
def test_unsqueezed_charges_are_the_charges(kind):
    how = Normalise(kind=kind, scale=700.0)
    values = torch.tensor([-1e5, -3.0, 0.0, 12.0, 2e5], dtype=torch.float64)
    torch.testing.assert_close(scaling.unsqueeze(scaling.squeeze(values, how), how), values)
    np.testing.assert_allclose(scaling.squeeze(values.numpy(), how), scaling.squeeze(values, how).numpy())


@pytest.mark.parametrize("kind", ["linear", "asinh"])
def test_predictions_are_electrons_whatever_the_network_learns(toy_run, kind):
    toy = toy_run()
    run = make_run(toy.xy[0].parent, data={"normalise_labels": {"kind": kind, "scale": 5000}})
    batch, network = batch_of(run, toy.xy[0], [0, 1]), TASK.model(run).eval()
    outcome = TASK.step(network, batch, CONTEXT)
    raw = network(batch["voxels/coords"], batch["voxels/features"])
    voxels = TASK.predict(network, batch, outcome)["voxels"]
    expected = raw * 5000 if kind == "linear" else 5000 * raw.sinh()
    torch.testing.assert_close(voxels["charge"], expected.reshape(-1))
    torch.testing.assert_close(voxels["labels"], batch["voxels/labels"].reshape(-1))
    assert TASK.yinf_attributes(run) == {"kind": "electrons"}
    squeezed = scaling.squeeze(batch["voxels/labels"], scaling.of_labels(run))
    raw = raw.detach()
    (term,) = outcome.terms.values()
    assert float(term.sum.detach() / term.weight) == pytest.approx(
        float(((raw - squeezed) ** 2).mean()), rel=1e-5
    )
    row = TASK.columns(TASK.metrics(outcome.outputs, batch))
    assert tuple(row) == TASK.column_names(run) == charge.COLUMNS
    assert TASK.monitor(run) == ("valid_loss", "min")
    assert "charge" in {field.name for field in TASK.yinf(run).table("voxels").fields}


def test_the_whole_truth_comes_with_the_batch(toy_run):
    toy = toy_run()
    limits = {"coord_lim": [[0, 30], None, None]}
    run = make_run(
        toy.xy[0].parent, loss={"name": "DownsampleMSELoss", "downsample": [5, 5, 5]},
        data={"transforms": {"scale": 2.0, **limits}},
    )  # fmt: skip
    batch = batch_of(run, toy.xy[0], [0])
    written = toy.events["Mu"][0]
    inside = written.truth[:, 0] < 30
    np.testing.assert_array_equal(batch["truth/coords"][:, 1:].numpy(), written.truth[inside])
    np.testing.assert_allclose(batch["truth/values"][:, 0].numpy(), 2 * written.truth_charge[inside])
    outcome = TASK.step(TASK.model(run), batch, CONTEXT)
    assert set(outcome.terms) == {"mse", "cells"}
    plain = batch_of(make_run(toy.xy[0].parent), toy.xy[0], [0])
    assert "truth/coords" not in plain.tensors
    with pytest.raises(ConfigError, match=r"data\.full_y"):
        TASK.step(TASK.model(run), plain, CONTEXT)
    with_it = batch_of(make_run(toy.xy[0].parent, data={"full_y": True}), toy.xy[0], [0])
    assert len(with_it["truth/coords"]) == len(written.truth)


def test_a_scale_is_measured_once_and_kept(toy_run, tmp_path):
    toy = toy_run()
    auto = {"normalise": {"scale": "auto"}, "normalise_labels": {"kind": "linear", "scale": "auto"}}
    run = make_run(toy.xy[0].parent, tmp_path / "out", data=auto)
    with pytest.raises(ConfigError, match=r"normalisation\.h5 is missing"):
        scaling.of_features(run)
    TASK.prepare(run, shards.index(toy.xy))
    everything = [event for events in toy.events.values() for event in events]
    labels = np.concatenate([event.labels for event in everything])
    features = np.concatenate([event.features.ravel() for event in everything])
    assert scaling.of_labels(run).scale == pytest.approx(np.median(labels[labels > 0]))
    assert scaling.of_features(run).scale == pytest.approx(np.median(features[features > 0]))
    batch = batch_of(run, toy.xy[0], [0])
    assert batch["voxels/features"].abs().median() < 3
    (tmp_path / "out/checkpoints").mkdir()
    (tmp_path / "out/checkpoints/checkpoint_000.pth.tar").touch()
    before = scaling.of_labels(run)
    TASK.prepare(run, shards.index(toy.xy[:1]))  # other data, but there are weights that know the old scale
    assert scaling.of_labels(run) == before
    path = scaling.file_of(run)
    path.write_bytes(path.read_bytes().replace(np.float64(before.scale).tobytes(), np.float64(1.0).tobytes()))
    with pytest.raises(ConfigError, match="changed or damaged"):
        scaling.of_labels(run)


def test_a_frozen_backbone_stays_as_it_is(toy_run):
    toy = toy_run()
    run = make_run(
        toy.xy[0].parent, model={"freeze": True, "nHiddenLayers": 1}, train={"n_epochs": 1, "init_from": "x"}
    )
    network = TASK.model(run)
    (stage,) = TASK.stages(run)
    select_trainable(network, stage)
    assert not network.backbone.training
    assert network.regression.training
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    moved = TASK.optimization(run, network, stage, Pace(1, 1))
    moved.schedule.before_step(0)
    term = TASK.step(network, batch_of(run, toy.xy[0], [0]), CONTEXT).terms["MSELoss"]
    (term.sum / term.weight).backward()
    moved.optimizer.step()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.regression.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.backbone.state_dict().items())
    assert (TASK.stages(make_run()))[0].trainable == ("*",)


def test_labels_in_another_unit_are_refused(tmp_path, toy_run):
    from tests.unit.protodune.conftest import write_xy

    path = write_xy(
        tmp_path / "mev" / "batch0-reco_Mu_001_xy-TPC1.h5",
        toy_run().events["Mu"],
        y_type="depo",
        y_unit="MeV",
    )
    with pytest.raises(dataset.DataError, match="--y-type depoElectron"):
        batch_of(make_run(path.parent), path, [0])
    scaled = make_run(path.parent, data={"transforms": {"scale": 29577.0}})
    assert len(batch_of(scaled, path, [0])["voxels/labels"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"threshold": 1.0}}, "data.threshold"),
        ({"loss": "BCELoss"}, "MSELoss"),
        ({"predicts": "probability"}, "predicts"),
        (
            {
                "loss": {"name": "DownsampleMSELoss", "downsample": [2, 2, 2]},
                "data": {"normalise_labels": "asinh"},
            },
            "kind: linear",
        ),
        ({"data": {"normalise": {"scale": -1}}}, "data.normalise.scale"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(ConfigError) as error:
        make_run(**changes)
    assert said in str(error.value)


def test_a_model_of_the_users_own_may_predict_electrons():
    run = make_run(model=None, predicts="electrons")
    assert run.settings.predicts == "electrons"
    raw = {"output_dir": "o", "data": {"data_path": "x", "inference_i": [0, 1]}, "model": "torch.nn:Identity"}
    assert normalise(raw).settings.predicts == "probability"
    assert normalise(raw | {"predicts": "electrons"}).settings.predicts == "electrons"


def test_an_empty_batch_adds_nothing():
    run = make_run()
    table = {
        "coords": np.zeros((5, 3), np.int32), "features": np.ones((5, 3), np.float32),
        "labels": np.ones((5, 1), np.float32),
    }  # fmt: skip
    network, like = TASK.model(run), Event({"voxels": table})
    full, empty = collate([like], [Ref(0, 0)], [1.0]), collate([], like=like)
    sums = TASK.metrics(TASK.step(network, full, CONTEXT).outputs, full)
    outcome = TASK.step(network, empty, CONTEXT)
    zeros = TASK.metrics(outcome.outputs, empty)
    assert {k: v.shape for k, v in zeros.items()} == {k: v.shape for k, v in sums.items()}
    assert not any(v.any() for v in zeros.values())
    assert float(outcome.terms["MSELoss"].weight) == 0
