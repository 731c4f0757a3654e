"""What an IceCube run is made of once its config is read: the part that the core does not look into. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hpcreco.config import Run, Strict
from hpcreco.experiments.icecube.reading import Reading

#: what the original's loss functions are called, and what is special about them is told in `losses`
LOSSES = (
    "unbinned_pulse_time_llh",
    "negative_binomial_charge_pdf",
    "unbinned_extended_pulse_llh",
    "unbinned_pulse_and_dom_charge_pdf",
    "dom_charge_pdf",
    "negative_binomial_event_charge_pdf",
    "normalized_dom_charge_pdf",
    "dom_and_event_charge_pdf",
    "unbinned_pulse_time_mpe_llh",
    "unbinned_charge_quantile_pdf",
)
PRIOR = "prior"


class LossOptions(Strict):
    """What the functions of the loss can be told.

    min_alpha: least over-dispersion of a charge. mpe_quantile: which pulse the multi-photo-electron likelihood takes,
    0 for a DOM's first. min_charge_quantile, max_charge_quantile: of the pulses that `unbinned_charge_quantile_pdf`
    takes. uniform: parameter -> (low, high); normal: parameter -> (mean, width), of a prior.
    """

    add_normalization_term: bool = True
    min_alpha: float | None = Field(default=None, ge=0)
    mpe_quantile: float = Field(default=0.0, ge=0, lt=1)
    min_charge_quantile: float = Field(default=0.0, ge=0, le=1)
    max_charge_quantile: float = Field(default=1.0, ge=0, le=1)
    uniform: dict[str, tuple[float, float]] = Field(default_factory=dict)
    normal: dict[str, tuple[float, float]] = Field(default_factory=dict)


class LossTerm(LossOptions):
    """One term of the loss. function: one of LOSSES, or PRIOR. weight: factor of the whole term."""

    function: str
    weight: float = 1.0

    @property
    def is_prior(self) -> bool:
        """Does it look at the parameters alone?"""
        return self.function == PRIOR


class Schedule(Strict):
    """A schedule of the learning rate by name, with its arguments."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


#: a learning rate: a number or a schedule
Rate = float | Schedule


class Sources(Strict):
    """Paths, folders and glob patterns of pulses shards; None where the config names none.

    validation_events: how many events a validation looks at, spread evenly over all; None for all of them.
    """

    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] | None = None
    trafo: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    detector: str | None = None


class Trafo(Strict):
    """The transformation of the parameters: where it lies, and how it is made.

    log: flags in the order of the parameters, the last repeated for those that follow. events: how many to look at.
    """

    folder: Path
    log: tuple[bool, ...] = ()
    epsilon: float = Field(default=1e-6, gt=0)
    events: int | None = Field(default=None, ge=1)

    @property
    def path(self) -> Path:
        """The artefact's file."""
        return self.folder / "trafo.h5"


class Optimizer(Strict):
    """Name, arguments in Keras' words, and the learning rate."""

    name: str = "Adam"
    arguments: dict[str, Any] = Field(default_factory=dict)
    rate: Rate = 1e-3


class Regularisation(Strict):
    """λ₁ Σ|w| + λ₂ Σw² over all that trains, added to the loss of a step."""

    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=0.0, ge=0)


class Cut(Strict):
    """Only events whose parameter fulfils ``value op threshold`` count."""

    parameter: str
    op: str
    threshold: float


class Settings(Strict):
    """Everything of an IceCube run that is not the core's business.

    model: `model_settings` with our class names. frozen: dotted paths of bases that are not trained. weighted: does an
    event count by its weight? normalise_by_charge: is a step's loss divided by its charge?
    """

    not_identity: ClassVar[tuple[str, ...]] = ("sources", "trafo", "reconstruction", "particle", "inert")

    unique_name: str = "model"
    sources: Sources
    reading: Reading = Reading()
    model: dict[str, Any]
    frozen: tuple[tuple[str, ...], ...] = ()
    losses: tuple[LossTerm, ...]
    optimizer: Optimizer | None = None
    regularisation: Regularisation = Regularisation()
    normalise_by_charge: bool = False
    remove_nan_gradients: bool = False
    batch_size: int = Field(default=32, ge=1)
    weighted: bool = False
    cuts: tuple[Cut, ...] = ()
    trafo: Trafo
    reconstruction: dict[str, Any] = Field(default_factory=dict)
    particle: dict[str, str] = Field(default_factory=dict)
    inert: tuple[str, ...] = ()


def settings_of(run: Run) -> Settings:
    """The IceCube part of a run."""
    assert isinstance(run.settings, Settings)
    return run.settings
