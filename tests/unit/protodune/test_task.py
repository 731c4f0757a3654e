"""The deghosting task: terms, metrics and columns that add up, predictions, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.config import ConfigError
from hpcreco.data.batch import Event, Ref, collate
from hpcreco.experiments.protodune.analysis.curve import curve_from_histograms, histogram
from hpcreco.experiments.protodune.dialect import normalise
from hpcreco.experiments.protodune.objective.deghosting import COLUMNS
from hpcreco.experiments.protodune.task import TASK
from hpcreco.train.task import Context, Pace, Stage


def make_run(loss=None, metrics=None, **more):
    raw = {
        "output_dir": "out",
        "data": {"data_path": "xy", "train_i": [0, 1], "inference_i": [2, 2], "threshold": 0.5},
        "model": {
            "name": "cellnet_binary", "spatial_size": [32, 32, 32], "nChannels": 4, "nStrides": 2,
            "downsample_t": [2, 2],
            "momentum": 0.5,
        },
        "loss": loss or {"name": "BCELoss"},
        "optimizer": {"name": "Adam", "lr": 0.02},
        "train": {"n_epochs": 2},
        "metrics": {"acc": "BinAccuracy"} if metrics is None else metrics,
    }  # fmt: skip
    return normalise(raw | more)


def event(rng, rows=80, labelled=True):
    """Voxels whose first charge tells, with some noise, whether they are true."""
    flat = rng.permutation(16**3)[:rows]
    coords = np.stack(np.unravel_index(flat, (16, 16, 16)), axis=1).astype(np.int32)
    labels = (rng.random((rows, 1)) < 0.2).astype(np.float32)
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    features[:, :1] += 3 * labels
    table = {"coords": coords, "features": features}
    return Event({"voxels": table | ({"labels": labels} if labelled else {})})


def batch_of(*events):
    return collate(events, [Ref(0, k) for k in range(len(events))], [1.0] * len(events))


def context(training=True):
    return Context("main", 0, training, torch.Generator())


def build(run):
    torch.manual_seed(0)
    return TASK.model(run)


def test_sums_of_parts_make_the_row_of_the_whole():
    run, rng = make_run({"name": "BCEL1Loss", "L1_lambda": 0.1}), np.random.default_rng(0)
    model, events = build(run).eval(), [event(rng, rows) for rows in (80, 30, 55)]
    whole = batch_of(*events)
    outcome = TASK.step(model, whole, context(False))
    sums = TASK.metrics(outcome.outputs, whole)
    parts = [batch_of(events[0], events[1]), batch_of(events[2])]
    outcomes = [TASK.step(model, part, context(False)) for part in parts]
    added = [TASK.metrics(o.outputs, p) for o, p in zip(outcomes, parts, strict=True)]
    assert TASK.columns({k: added[0][k] + added[1][k] for k in sums}) == pytest.approx(TASK.columns(sums))
    assert set(outcome.terms) == {"bce", "l1"}
    for name, term in outcome.terms.items():
        parts_sum = float(sum(o.terms[name].sum.detach() for o in outcomes))
        assert parts_sum == pytest.approx(float(term.sum.detach()), rel=1e-5)
        assert float(sum(o.terms[name].weight for o in outcomes)) == float(term.weight) == 165


def test_columns_are_those_declared_and_auc_pe_is_the_analysis_s():
    run, rng = make_run(metrics={"acc": "BinAccuracy", "other": "BinAccuracy"}), np.random.default_rng(1)
    batch = batch_of(event(rng), event(rng))
    outcome = TASK.step(build(run).eval(), batch, context(False))
    sums = TASK.metrics(outcome.outputs, batch)
    row = TASK.columns(sums)
    assert tuple(row) == TASK.column_names(run) == ("acc", "other", *COLUMNS)
    scores = outcome.outputs["probability"].detach().numpy().ravel()
    true = batch["voxels/labels"].numpy().ravel() > 0
    assert sums["probability/true_scores"].tolist() == histogram(scores[true]).tolist()
    assert sums["probability/ghost_scores"].tolist() == histogram(scores[~true]).tolist()
    curve = curve_from_histograms(histogram(scores[true]), histogram(scores[~true]))
    assert row["auc_pe"] == curve.auc_pe
    assert row["acc"] == pytest.approx(((scores > 0.5) == true).mean())


def test_an_empty_batch_has_the_same_terms_and_metrics_of_weight_zero():
    run, rng = make_run(), np.random.default_rng(2)
    model = build(run)
    full, empty = batch_of(event(rng)), collate([], like=event(rng))
    outcome, none = TASK.step(model, full, context()), TASK.step(model, empty, context())
    assert none.terms.keys() == outcome.terms.keys()
    assert all(float(t.sum.detach()) == float(t.weight) == 0 for t in none.terms.values())
    sums, zeros = TASK.metrics(outcome.outputs, full), TASK.metrics(none.outputs, empty)
    assert {k: v.shape for k, v in zeros.items()} == {k: v.shape for k, v in sums.items()}
    assert not any(v.any() for v in zeros.values())
    none.terms["bce"].sum.backward()


def test_without_labels_there_are_predictions_but_no_terms():
    run, rng = make_run({"name": "WeightedBCELoss"}), np.random.default_rng(3)  # the loss is not looked at
    batch = batch_of(event(rng, labelled=False), event(rng, rows=0, labelled=False))
    model = build(run).eval()
    outcome = TASK.step(model, batch, context(False))
    assert outcome.terms == {}
    voxels = TASK.predict(model, batch, outcome)["voxels"]
    assert set(voxels) == {"coords", "probability"}
    assert torch.equal(voxels["coords"], batch["voxels/coords"][:, 1:])
    assert voxels["probability"].shape == (80,)


def test_predictions_fit_the_yinf_schema():
    run, rng = make_run(), np.random.default_rng(4)
    batch, model = batch_of(event(rng)), build(run).eval()
    tables = TASK.predict(model, batch, TASK.step(model, batch, context(False)))
    schema = TASK.yinf(run)
    for name, tensor in tables["voxels"].items():
        field = schema.table("voxels").field(name)
        assert str(tensor.dtype).removeprefix("torch.") == field.dtype
        assert tensor.shape[1:] == (() if field.columns is None else (len(field.columns),))
    known = {attribute.name for attribute in schema.attributes}
    assert set(TASK.yinf_attributes(run)) <= known


def test_bf16_probabilities_are_not_rounded_to_one():
    """In bf16 the largest number below 1 is 0.996: the curve at high thresholds would be lost."""
    rng = np.random.default_rng(5)
    model, batch = build(make_run()), batch_of(event(rng))
    with torch.autocast("cpu", torch.bfloat16):
        outcome = TASK.step(model, batch, context())
    assert outcome.outputs["probability"].dtype == torch.float32
    assert outcome.terms["bce"].sum.dtype == torch.float32


def test_it_learns():
    run, rng = make_run(), np.random.default_rng(6)
    model = build(run)
    moved = TASK.optimization(run, model, Stage("main"), Pace(10, 1))
    batch, unseen = batch_of(*(event(rng) for _ in range(6))), batch_of(*(event(rng) for _ in range(6)))
    for number in range(40):
        moved.schedule.before_step(number)
        moved.optimizer.zero_grad()
        term = TASK.step(model, batch, context()).terms["bce"]
        (term.sum / term.weight).backward()
        moved.optimizer.step()
    model.eval()
    outcome = TASK.step(model, unseen, context(False))
    row = TASK.columns(TASK.metrics(outcome.outputs, unseen))
    assert row["auc_pe"] > 0.8  # 0.2 by chance
    assert row["balanced_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": {"name": "WeightedBCELoss", "negative_weight": 1}}, "ChargeWeightedBCELoss"),
        ({"metrics": {"acc": "BinAcc"}}, "did you mean 'BinAccuracy'"),
        ({"optimizer": {"name": "Adm", "lr": 1}}, "did you mean 'Adam'"),
    ],
)
def test_what_cannot_be_used_fails_before_the_first_step(changes, said):
    run = make_run(**changes)
    with pytest.raises(ConfigError) as error:
        TASK.optimization(run, build(run), Stage("main"), Pace(1, 1))
    assert said in str(error.value)


def test_frozen_parameters_are_not_given_to_the_optimizer():
    run = make_run()
    model = build(run)
    model.backbone.requires_grad_(False)
    moved = TASK.optimization(run, model, Stage("main"), Pace(1, 1))
    assert sum(p.numel() for g in moved.optimizer.param_groups for p in g["params"]) == 5


def test_monitor():
    assert TASK.monitor(make_run()) == ("valid_auc_pe", "max")
    data = {"data_path": "xy", "train_i": [0, 1]}
    assert TASK.monitor(make_run(data=data)) == ("train_auc_pe", "max")
