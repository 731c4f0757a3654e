"""Generator networks as a task: the likelihood of simulated events at their true parameters."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hpcreco import shards
from hpcreco.config import Run
from hpcreco.data.batch import Batch
from hpcreco.experiments.icecube import files, hypothesis, losses, rates
from hpcreco.experiments.icecube import trafo as trafos
from hpcreco.experiments.icecube.dataset import PulseReader
from hpcreco.experiments.icecube.likelihood import Likelihood
from hpcreco.experiments.icecube.observe import observe
from hpcreco.experiments.icecube.reading import ReadingError
from hpcreco.experiments.icecube.settings import Cut, Settings, settings_of
from hpcreco.experiments.icecube.yinf import LOSSES
from hpcreco.nn.metrics import ratio
from hpcreco.shards import Schema
from hpcreco.train.task import Context, Optimization, Outcome, Pace, Stage, Tables, Task, Term

PARAMETERS = "event/parameters"

#: columns of the summary beside the means of the loss terms: loss per event, expected over observed charge
COLUMNS = ("event_loss", "charge_ratio")

_OPERATORS = {"<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt}
_TERM = "term/"


class Trained(nn.Module):
    """A likelihood with what its training has to know: how events count, and what is added to the loss."""

    def __init__(self, likelihood: Likelihood, settings: Settings, n_doms: int) -> None:
        super().__init__()
        self.likelihood, self.settings, self.n_doms = likelihood, settings, n_doms

    def weights(self, batch: Batch) -> Tensor:
        """(n,) how much each event counts; 0 for those that a cut removes."""
        parameters = batch[PARAMETERS]
        weights = torch.ones_like(parameters[:, 0])
        if self.settings.weighted:
            weights = weights * batch["event/weight"].reshape(-1)
        for cut in self.settings.cuts:
            weights = weights * self._passes(cut, parameters)
        return weights

    def _passes(self, cut: Cut, parameters: Tensor) -> Tensor:
        names = self.likelihood.parameter_names
        if cut.parameter not in names:
            raise ReadingError(
                f"filter_settings.constraints: there is no parameter {cut.parameter!r}; the hypothesis has "
                + ", ".join(names)
            )
        value = parameters[:, names.index(cut.parameter)]
        return _OPERATORS[cut.op](value, cut.threshold).to(parameters.dtype)  # type: ignore[no-any-return]

    def penalty(self) -> Tensor | None:
        """λ₁ Σ|w| + λ₂ Σw² over what trains; None when both are 0."""
        wanted = self.settings.regularisation
        if not (wanted.l1 or wanted.l2):
            return None
        trained = [p for p in self.parameters() if p.requires_grad]
        l1 = torch.stack([p.abs().sum() for p in trained]).sum()
        l2 = torch.stack([(p**2).sum() for p in trained]).sum()
        return wanted.l1 * l1 + wanted.l2 * l2


def build_model(run: Run) -> Trained:
    """The hypothesis of a run within its likelihood. Raises TrafoError, naming the remedy, without a transformation."""
    settings = settings_of(run)
    detector = files.detector_of(run)
    trafo = trafos.read(settings.trafo.path)
    source = hypothesis.build(settings.model, detector, trafo)
    network = Trained(Likelihood(source, settings.losses), settings, detector.n_doms)
    if settings.remove_nan_gradients:
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: torch.nan_to_num(gradient, 0.0, None, None))
    return network


def read(run: Run, training: bool) -> PulseReader:
    """Events with their true parameters in the order of the hypothesis."""
    del training  # nothing is augmented
    names = build_model(run).likelihood.parameter_names
    return PulseReader(replace(settings_of(run).reading, parameters=names))


def stages(run: Run) -> tuple[Stage, ...]:
    """One stage, in which everything trains that the config does not keep as it was loaded."""
    trained = tuple(name for name, p in build_model(run).named_parameters() if p.requires_grad)
    return (Stage("main", trainable=trained),)


def prepare(run: Run, index: shards.Index) -> None:
    """All shards should be of one detector. Raises DetectorError naming the one that is not."""
    files.check_one_detector([*index.paths], files.detector_of(run))


def optimization(run: Run, network: nn.Module, stage: Stage, pace: Pace) -> Optimization:
    """The config's optimizer over what trains; the learning rate follows from the step."""
    wanted = settings_of(run).optimizer
    assert wanted is not None  # the dialect always names one
    rate = rates.course(wanted.rate, "training_settings.optimizer_settings.learning_rate")
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = rates.optimizer(trained, wanted.name, wanted.arguments, rate(0))
    return Optimization(optimizer, rates.StepSchedule(optimizer, rate))


def step(network: nn.Module, batch: Batch, context: Context) -> Outcome:
    """The loss terms summed over the batch's events, and what each event contributes.

    A full step's loss is the sum over its events, as the original's: the mean times the batch size. Without true
    parameters in the batch there are no terms.
    """
    assert isinstance(network, Trained)
    settings = network.settings
    parameters = batch.tensors.get(PARAMETERS)
    if parameters is None:
        return Outcome({}, {})
    weights = network.weights(batch)
    if batch.n_events:
        data = observe(batch, network.n_doms)
        expectations = network.likelihood.expect(parameters, data)
        by_term = network.likelihood.by_term(parameters, data, expectations)
        charge = torch.where(data.usable, data.dom_charge, 0.0).sum(1)
        expected = torch.stack([torch.where(data.usable, e.charge, 0.0).sum(1) for e in expectations]).mean(0)
    else:
        by_term = dict.fromkeys(losses.names(settings.losses), weights)
        charge = expected = weights
    denominator, factor = (
        ((weights * charge).sum(), 1.0)
        if settings.normalise_by_charge
        else (weights.sum(), float(settings.batch_size))
    )
    terms = {
        name: Term((weights * value).sum(), denominator.detach(), factor) for name, value in by_term.items()
    }
    penalty = network.penalty() if context.training else None
    if penalty is not None:
        terms["regularization"] = Term(penalty, torch.ones_like(penalty), 1.0)
    outputs = {f"{_TERM}{name}": value.detach() for name, value in by_term.items()}
    return Outcome(terms, {**outputs, "weight": weights, "charge": charge, "expected": expected.detach()})


def count(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Sums over events for the summary."""
    weights = outputs["weight"]
    sums = {name: (weights * value).sum() for name, value in outputs.items() if name != "weight"}
    return {**sums, "weight": weights.sum()}


def columns(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Means per event of every term and of the whole loss, and expected over observed charge."""
    means = {
        name.removeprefix(_TERM): ratio(value, sums["weight"])
        for name, value in sums.items()
        if name.startswith(_TERM)
    }
    return {
        "event_loss": sum(means.values()),
        "charge_ratio": ratio(sums["expected"], sums["charge"]),
        **means,
    }


def column_names(run: Run) -> tuple[str, ...]:
    """COLUMNS first, then the loss terms."""
    return (*COLUMNS, *losses.names(settings_of(run).losses))


def predict(network: nn.Module, batch: Batch, outcome: Outcome) -> Tables:
    """How likely each event is at its true parameters; fits are made by `hpcreco icecube reconstruct`."""
    if not outcome.outputs:
        raise ReadingError(
            "the shards hold no true parameters to evaluate the likelihood at; fit them with "
            "`hpcreco icecube reconstruct`"
        )
    loss = torch.stack([v for name, v in outcome.outputs.items() if name.startswith(_TERM)]).sum(0)
    rows = {"loss": loss.double(), "charge": outcome.outputs["charge"].float()}
    return {"events_at_truth": {**rows, "expected": outcome.outputs["expected"].float()}}


def losses_schema(run: Run) -> Schema:
    """The same for every run."""
    return LOSSES


def attributes(run: Run) -> dict[str, Any]:
    """Which terms the loss has."""
    return {"terms": list(losses.names(settings_of(run).losses))}


def monitor(run: Run) -> tuple[str, str]:
    """The best epoch has the smallest loss."""
    validates = settings_of(run).sources.validation is not None
    return ("valid_event_loss" if validates else "train_event_loss", "min")


TASK = Task(
    read=read,
    model=build_model,
    optimization=optimization,
    step=step,
    metrics=count,
    columns=columns,
    column_names=column_names,
    predict=predict,
    yinf=losses_schema,
    yinf_attributes=attributes,
    monitor=monitor,
    stages=stages,
    prepare=prepare,
)
