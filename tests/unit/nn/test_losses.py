"""Losses: the formulas, the torch ones as torch has them, sums that add, half precision, and clear
refusals.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcreco.config import ConfigError
from hpcreco.nn import losses
from hpcreco.nn.losses import Prediction


def total(terms):
    return sum(float(t.coefficient) * float(t.sum) / float(t.weight) for t in terms.values())


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 1, generator=generator, dtype=torch.float64) * 3
    target = (torch.rand(200, 1, generator=generator) < 0.2).double()
    return Prediction(logits.sigmoid(), logits), target


def bce(p, y):
    return -(y * p.log() + (1 - y) * (1 - p).log())


def test_the_weighted_losses_are_their_formulas(sample):
    prediction, y = sample
    p, charge = prediction.value, y * torch.linspace(1, 50, 200, dtype=torch.float64)[:, None]
    expected = {
        "BCELoss": (bce(p, y).mean(), {}, y),
        "BCEL1Loss": (bce(p, y).mean() + 0.1 * p.mean(), {"L1_lambda": 0.1}, y),
        "LabelWeightedBCELoss": ((torch.where(y == 1, 100.0, 1.0) * bce(p, y)).mean(), {"positive_weight":
        100}, y), "ChargeWeightedBCELoss": (
            (torch.where(charge > 0, charge, 2.0) * bce(p, (charge > 0).double())).mean(), {"negative_weight":
            2}, charge,
        ),
    }  # fmt: skip
    for name, (value, arguments, target) in expected.items():
        for given in (prediction, Prediction(p)):  # with logits and without
            assert total(losses.build(name, arguments)(given, target)) == pytest.approx(
                float(value), rel=1e-9
            ), name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BCELoss", {}),
        ("MSELoss", {}),
        ("L1Loss", {}),
        ("SmoothL1Loss", {"beta": 0.3}),
        ("HuberLoss", {}),
        ("PoissonNLLLoss", {}),
    ],
)
def test_torch_losses_are_torchs_own_mean(sample, name, arguments):
    prediction, y = sample
    ours = total(losses.build(name, arguments)(Prediction(prediction.value), y))
    assert ours == pytest.approx(float(getattr(nn, name)(**arguments)(prediction.value, y)), rel=1e-9)


def test_losses_on_logits_get_logits(sample):
    prediction, y = sample
    expected = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([5.0]))(prediction.logits, y)
    ours = total(losses.build("BCEWithLogitsLoss", {"pos_weight": [5.0]})(prediction, y))
    assert ours == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    "arguments", [{}, {"weight": [1.0, 5.0, 0.5]}, {"ignore_index": 1, "label_smoothing": 0.0}]
)
def test_class_weights_count_in_the_denominator(arguments):
    scores = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    target = torch.arange(60) % 3
    plain = {k: torch.tensor(v) if k == "weight" else v for k, v in arguments.items()}
    expected = nn.CrossEntropyLoss(**plain)(scores, target)
    assert total(losses.build("CrossEntropyLoss", arguments)(Prediction(scores), target)) == pytest.approx(
        float(expected)
    )


def test_terms_add_over_any_split(sample):
    prediction, y = sample
    loss = losses.build("BCEL1Loss", {"L1_lambda": 0.3})
    cuts = [slice(0, 7), slice(7, 7), slice(7, 150), slice(150, 200)]  # one of them without rows
    parts = [loss(Prediction(prediction.value[c], prediction.logits[c]), y[c]) for c in cuts]
    whole = loss(prediction, y)
    for name in whole:
        assert float(sum(p[name].sum for p in parts)) == pytest.approx(float(whole[name].sum))
        assert float(sum(p[name].weight for p in parts)) == float(whole[name].weight)
    assert all(float(t.sum) == float(t.weight) == 0 for t in parts[1].values())


def test_a_saturated_wrong_prediction_keeps_its_gradient():
    logits = torch.tensor([[40.0]], requires_grad=True)
    terms = losses.build("BCELoss", {})(Prediction(logits.sigmoid(), logits), torch.zeros(1, 1))
    terms["bce"].sum.backward()
    assert float(terms["bce"].sum.detach()) == pytest.approx(40.0)
    assert float(logits.grad) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["BCELoss", "BCEL1Loss", "MSELoss"])
def test_under_bf16_autocast_losses_are_computed_in_float32(name):
    arguments = {"L1_lambda": 0.1} if name == "BCEL1Loss" else {}
    layer = nn.Linear(4, 1)
    x, y = torch.randn(3000, 4), torch.zeros(3000, 1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(x)
        assert logits.dtype == torch.bfloat16
        for given in (Prediction(logits.float().sigmoid(), logits), Prediction(logits.sigmoid())):
            terms = losses.build(name, arguments)(given, y)
            for term in terms.values():
                assert term.sum.dtype == torch.float32
                assert float(term.weight) == 3000  # bf16 would have rounded it
                term.sum.backward(retain_graph=True)


def test_everything_follows_the_predictions_device():
    for name, arguments in [
        ("BCELoss", {}), ("BCEL1Loss", {"L1_lambda": 1}), ("LabelWeightedBCELoss", {"positive_weight": 2}),
        ("ChargeWeightedBCELoss", {}), ("MSELoss", {}), ("BCEWithLogitsLoss", {"pos_weight": 2.0}),
    ]:  # fmt: skip
        logits = torch.zeros(5, 1, device="meta")  # a device other than the CPU that every machine has
        inner = losses.build(name, arguments)._loss  # autocast does not know the meta device
        terms = inner(Prediction(logits.sigmoid(), logits), torch.zeros(5, 1, device="meta"))
        devices = {tensor.device.type for term in terms.values() for tensor in (term.sum, term.weight)}
        assert devices == {"meta"}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("BCELos", {}, "did you mean 'BCELoss'"),
        ("BCEL1Loss", {"lambda": 1}, "loss.lambda"),
        ("BCEL1Loss", {}, "L1_lambda"),
        ("MSELoss", {"reductoin": "sum"}, "did you mean 'reduction'"),
        ("MSELoss", {"reduction": "sum"}, "use mean"),
        ("BCELoss", {"reduction": "sum"}, "use mean"),
        ("TripletMarginLoss", {}, "anchor"),
        ("WeightedBCELoss", {"negative_weight": 1}, "ChargeWeightedBCELoss"),
        ("DownsampleMSELoss", {"downsample": [5, 5]}, "three numbers"),
        ("DownsampleMSELoss", {}, "downsample"),
        ("nowhere:Loss", {}, "no module 'nowhere'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(name, arguments, said):
    with pytest.raises(ConfigError) as error:
        losses.build(name, arguments)
    assert said in str(error.value)


def test_values_that_are_no_probabilities_and_shapes_that_differ_are_refused():
    with pytest.raises(ConfigError, match="probabilities"):
        losses.build("BCELoss", {})(Prediction(torch.tensor([[1.5]])), torch.ones(1, 1))
    with pytest.raises(ConfigError, match="differ in shape"):
        losses.build("MSELoss", {})(Prediction(torch.ones(3, 1)), torch.ones(3))


def test_a_loss_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "from torch import nn\n"
        "class Cubic(nn.Module):\n"
        "    def __init__(self, factor, reduction='mean'):\n"
        "        super().__init__(); self.factor = factor\n"
        "    def forward(self, p, y):\n"
        "        return self.factor * (p - y).abs() ** 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    terms = losses.build("own_losses:Cubic", {"factor": 2})(
        Prediction(torch.full((4, 1), 3.0)), torch.ones(4, 1)
    )
    assert total(terms) == pytest.approx(16)
