"""Training through the seam: sums over events, resuming, what is added to the loss, what is exported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_icecube import flags, run_of

from hpcreco import cli, shards
from hpcreco.data.batch import collate
from hpcreco.experiments.icecube import components, create_trafo, export, task, trafo
from hpcreco.train import checkpoint
from hpcreco.train.task import Context

CONTEXT = Context("main", 0, True, torch.Generator())


def batch_of(run, events):
    """A batch of these events of the first training shard, in float64."""
    reader = task.read(run, True)
    (path,) = run.settings.sources.train[:1]
    with shards.Shard(path.replace("[01]", "0")) as shard:
        batch = collate([reader(shard, event, np.random.default_rng(0)) for event in events])
    doubled = {k: t.double() if t.is_floating_point() else t for k, t in batch.tensors.items()}
    return replace(batch, tensors=doubled)


def total(network, batch, context=CONTEXT):
    """Loss of a step and the sums of its terms."""
    outcome = task.step(network, batch, context)
    return sum(float((t.coefficient * t.sum / t.weight).detach()) for t in outcome.terms.values()), outcome


def test_a_full_batch_loses_what_its_events_lose(changed):
    run = run_of(changed())
    network = task.build_model(run).double()
    together, outcome = total(network, batch_of(run, [0, 1, 2, 3]))
    alone = [total(network, batch_of(run, [k]))[0] for k in range(4)]
    assert together == pytest.approx(sum(alone) / run.settings.batch_size, rel=1e-12)
    assert together == pytest.approx(sum(float(t.sum.detach()) for t in outcome.terms.values()), rel=1e-12)


def test_an_empty_batch_has_the_same_terms_and_no_weight(changed):
    run = run_of(changed(**{"training_settings.l2_regularization": 0.1}))
    network = task.build_model(run).double()
    full = batch_of(run, [0, 1])
    tensors = {key: tensor[:0] for key, tensor in full.tensors.items()}
    empty = replace(full, tensors=tensors, offsets={k: o[:1] for k, o in full.offsets.items()}, n_events=0)
    outcome = task.step(network, empty, CONTEXT)
    assert list(outcome.terms) == list(task.step(network, full, CONTEXT).terms)
    assert all(float(t.weight) == 0 for name, t in outcome.terms.items() if name != "regularization")


def test_normalised_by_charge_and_penalties_are_what_the_config_says(changed):
    plain = run_of(changed())
    network = task.build_model(plain).double()
    batch = batch_of(plain, [0, 1, 2, 3])
    loss, outcome = total(network, batch)
    keys = {
        "training_settings.additional_loss_module_kwargs.normalize_by_total_charge": True,
        "training_settings.l1_regularization": 0.5,
        "training_settings.l2_regularization": 0.25,
    }
    network.settings = run_of(changed(**keys)).settings
    found, _ = total(network, batch)
    weights = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    penalty = 0.5 * weights.abs().sum() + 0.25 * (weights**2).sum()
    charge = float(outcome.outputs["charge"].sum())
    assert found == pytest.approx(loss / charge + float(penalty), rel=1e-10)
    assert "regularization" not in task.step(network, batch, replace(CONTEXT, training=False)).terms


def test_cuts_leave_events_out(changed):
    run = run_of(changed())
    network = task.build_model(run).double()
    batch = batch_of(run, [0, 1, 2, 3])
    z = batch["event/parameters"][:, network.likelihood.parameter_names.index("cascade_z")]
    threshold = float(z.sort().values[1:3].mean())
    cut = {"data_handler_settings.filter_settings.constraints": f"[[Labels, cascade_z, <, {threshold}]]"}
    network.settings = run_of(changed(**cut)).settings
    kept = [k for k in range(4) if z[k] < threshold]
    loss, _ = total(network, batch)
    network.settings = run.settings
    alone, _ = total(network, batch_of(run, kept))
    assert len(kept) == 2
    assert loss == pytest.approx(alone, rel=1e-12)


def test_nan_gradients_are_removed_when_asked_for(changed):
    run = run_of(changed(**{"training_settings.remove_nan_gradients": True}))
    network = task.build_model(run)
    parameter = next(p for p in network.parameters() if p.requires_grad)
    (parameter * float("nan")).sum().backward()
    assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    (by_grad,) = torch.autograd.grad((parameter * float("nan")).sum(), parameter)
    assert not torch.isnan(by_grad).any()


# ------------------------------------------------------------------------------------------ whole runs

SEGMENTS = """{full_class_string: MultiLearningRateScheduler, settings: {boundaries: [2, 5], scheduler_settings: [
{full_class_string: PolynomialDecay, settings: {initial_learning_rate: 0.01, end_learning_rate: 0.001, decay_steps: 2}},
{full_class_string: PolynomialDecay,
 settings: {initial_learning_rate: 0.001, end_learning_rate: 0.001, decay_steps: 3}},
{full_class_string: PolynomialDecay,
 settings: {initial_learning_rate: 0.001, end_learning_rate: 1e-6, decay_steps: 3, power: 2}}]}}"""
RATE = "training_settings.optimizer_settings.learning_rate"
STEPS = "training_settings.num_training_iterations"


def weights(folder):
    found = checkpoint.load_latest(folder)
    assert found is not None
    return found[1]["model"], found[1]["progress"]["step"]


@pytest.mark.parametrize("cut", [2, 4])
def test_a_resumed_run_equals_a_straight_one_across_a_boundary_of_the_schedule(cut, changed, tmp_path):
    """The users' configs restore the model, so no --resume is needed."""
    segments = " ".join(SEGMENTS.split())
    straight = flags(changed("straight", **{RATE: segments}))
    assert cli.main(["train", "cascade_tiny", *straight]) == 0
    for steps in (cut, 8):
        parts = flags(changed("parts", **{RATE: segments, STEPS: steps}))
        assert cli.main(["train", "cascade_tiny", *parts]) == 0
    one, two = weights(tmp_path / "straight"), weights(tmp_path / "parts")
    assert one[1] == two[1] == 8
    assert all(torch.equal(value, two[0][name]) for name, value in one[0].items())


def test_checkpoints_come_when_they_are_due(changed, tmp_path):
    """save_frequency 3, validation_frequency 4, and only the best and the last three are kept."""
    assert cli.main(["train", "cascade_tiny", *flags(changed())]) == 0
    rows = (tmp_path / "run/summaries.csv").read_text().splitlines()
    assert len(rows) == 3
    assert rows[0].split("\t")[:4] == ["epoch", "train_loss", "train_event_loss", "train_charge_ratio"]
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("checkpoint_*"))
    assert len(names) <= 4, names
    assert weights(tmp_path / "run")[1] == 8


def test_a_model_that_is_not_restored_is_not_overwritten_unasked(changed):
    fresh = flags(changed(**{"model_manager_settings.restore_model": False, STEPS: 1}))
    assert cli.main(["train", "cascade_tiny", *fresh]) == 0
    assert cli.main(["train", "cascade_tiny", *fresh]) == 2
    assert cli.main(["train", "cascade_tiny", *fresh, "--overwrite"]) == 0


def test_a_transformation_is_not_replaced_unasked_and_says_how_to_be_made(changed, tmp_path, capsys):
    changes = flags(changed())
    assert cli.main(["icecube", "trafo", "cascade_tiny", *changes]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["icecube", "trafo", "cascade_tiny", *changes, "--overwrite"]) == 0
    elsewhere = ["--set", f"data_trafo_settings.model_dir={tmp_path / 'nowhere'}"]
    assert cli.main(["train", "cascade_tiny", *changes, *elsewhere]) == 2
    assert "hpcreco icecube trafo CONFIG" in capsys.readouterr().err


def test_the_transformation_is_that_of_the_events(changed, tmp_path):
    changed()
    made = trafo.read(tmp_path / "trafo")
    reader_run = run_of(changed())
    values = torch.cat(
        [batch_of(reader_run, [k])["event/parameters"] for k in range(16)]
    )  # the first of the two training shards
    y = made.transform(values)
    assert y.mean(0).abs().max() < 1.0
    assert made.log.tolist() == [False] * 5 + [True, False]
    assert create_trafo.flags([False, True], "abcd") == [False, True, True, True]
    assert create_trafo.chosen(10, 4).tolist() == [0, 2, 5, 7]


def test_an_export_moved_elsewhere_says_the_same_and_knows_where_it_comes_from(changed, tmp_path):
    changes = flags(changed())
    assert cli.main(["train", "cascade_tiny", *changes]) == 0
    out = tmp_path / "export"
    assert cli.main(["icecube", "export", "cascade_tiny", *changes, "-o", str(out)]) == 0
    assert cli.main(["icecube", "export", "cascade_tiny", *changes, "-o", str(out)]) == 2
    run = run_of(changed())
    batch = batch_of(run, [0, 1])
    network = task.build_model(run)
    checkpoint.load_into(network, weights(tmp_path / "run")[0], source="test")
    expected = network.likelihood.source.double()
    moved = tmp_path / "far" / "away"
    moved.parent.mkdir()
    shutil.move(out, moved)
    shutil.rmtree(tmp_path / "run")
    shutil.rmtree(tmp_path / "trafo")
    found = components.load(moved / "models_0000").double()
    parameters, data = batch["event/parameters"], task.observe(batch, network.n_doms)
    for one, other in zip(
        vars(expected.expect(parameters[None], data)).values(),
        vars(found.expect(parameters[None], data)).values(),
        strict=True,
    ):
        assert torch.equal(one, other)
    assert components.load(moved / "models_0000" / "cascade").parameter_names[0] == "x"
    record = components.configuration(moved / "models_0000")["provenance"]
    assert record["steps"] == 8
    assert record["training"][0]["settings"]["unique_name"] == "cascade_tiny"
    card = json.loads((moved / export.MODEL_CARD).read_text())
    assert card["models"][0]["parameters"] == list(network.likelihood.parameter_names)
