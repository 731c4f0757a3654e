"""The keys of a ProtoDUNE config: those of the original program, and hpcreco's own, which by default change nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from hpcreco.config import Cadence, EarlyStop, Parallel, Strict, within_budget
from hpcreco.experiments.protodune.settings import CellNet, ChargeCellNet, Normalise, Transforms

#: legacy keys that are accepted and change nothing, and why
IGNORED = {
    "data.use_dist_sampler_train": "files are always shared out over the ranks",
    "trainer.verbose": "the summary has the learning rate of every epoch",
    "data.use_dist_sampler_valid": "every validation file is read exactly once, whatever the number of ranks",
}

#: models that take the arguments of a config section
CELLNETS: dict[str, type[CellNet]] = {
    "cellnet_binary": CellNet,
    "cellnet_charge": ChargeCellNet,
}
#: what a voxel's value is, for models that are not probabilities
PREDICTS: dict[str, Literal["probability", "electrons"]] = {"cellnet_charge": "electrons"}
#: losses that need every true voxel of an event, and those of probabilities
WHOLE_TRUTH = ("DownsampleMSELoss",)
OF_PROBABILITIES = ("BCELoss", "BCEL1Loss", "LabelWeightedBCELoss", "ChargeWeightedBCELoss")
#: keys that are about training, and say nothing where the config names no data to train on
FOR_TRAINING = ("trainer", "schedule", "optimizer", "train.n_epochs", "train.iterations")
TRAINERS = ("basic", "schedule_plateau", "hello")


class Storing(Strict):
    """`store_inference:` as users write it."""

    everyNepoch: int | None = Field(default=None, ge=1)  # noqa: N815
    everyNsample: int | None = Field(default=None, ge=1)  # noqa: N815
    outdir: str | None = None


class Data(Strict):
    """`data:`; the lists run parallel to `data_path`."""

    name: str = "sparse"
    data_path: list[str]
    train_i: Any = None
    inference_i: Any = None
    tpcs: Any = None
    batch_size: int = 1
    threshold: float | None = None
    full_y: bool = False
    transforms: Transforms = Transforms()
    use_dist_sampler_train: bool = True
    use_dist_sampler_valid: bool = True
    # hpcreco's own
    normalise: Normalise | None = None
    normalise_labels: Normalise | None = None
    event_batch: int | None = Field(default=None, ge=1)
    cost_budget: float | None = Field(default=None, gt=0)
    rank_budget: float | None = Field(default=None, gt=0)
    micro_cost: float = Field(default=math.inf, gt=0)
    workers: int = Field(default=1, ge=1)
    prefetch: int = Field(default=2, ge=1)
    stage: Path | None = None  # folder on each node's own storage: shards are copied there, unpacked

    _within_budget = field_validator("rank_budget")(within_budget)

    @field_validator("data_path", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("transforms", mode="before")
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("normalise", "normalise_labels", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Train(Strict):
    """`train:`"""

    n_epochs: int | None = Field(default=None, ge=0)
    start_epoch: int | None = Field(default=None, ge=0)
    transfer: bool = False
    # hpcreco's own
    iterations: int | None = Field(default=None, ge=0)
    init_from: str | None = None
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    warmup_epochs: float = Field(default=0.0, ge=0)
    grad_clip: float | None = Field(default=None, gt=0)
    amp: bool = False
    precision: Literal["float32", "float64"] = "float32"
    early_stop: EarlyStop | None = None
    keep_checkpoints: int | None = Field(default=None, ge=1)
    save: Cadence = Cadence(every=1)
    validate_every: Cadence = Cadence(every=1, unit="epochs")
    report: Cadence = Cadence(every=30, unit="seconds")

    @field_validator("early_stop", mode="before")
    @classmethod
    def _patience(cls, value: Any) -> Any:
        return {"patience": value} if isinstance(value, int) else value


class Sparse(Strict):
    """`sparse:` which implementation computes the sparse convolutions."""

    backend: Literal["native", "minkowski"] = "native"


class Dialect(Strict):
    """A whole config file."""

    experiment: str = "protodune"
    trainer: dict[str, Any] = Field(default_factory=lambda: {"name": "basic"})
    output_dir: str
    store_inference: Storing | None = None
    data: Data
    model: dict[str, Any]
    loss: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    train: Train = Train()
    metrics: dict[str, str] = Field(default_factory=dict)
    # hpcreco's own
    predicts: Literal["probability", "electrons"] | None = None
    seed: int = 0
    schedule: dict[str, Any] | None = None
    sparse: Sparse = Sparse()
    parallel: Parallel = Parallel()
    backend: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    rank_files: bool = False
    tensorboard: bool = False

    @field_validator("trainer", "model", "loss", "optimizer", "schedule", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and not isinstance(value.get("name"), str):
            raise ValueError("expected the name of a class under the key `name`")
        return value

    @field_validator("store_inference", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @field_validator("metrics", mode="before")
    @classmethod
    def _no_metrics(cls, value: Any) -> Any:
        return {} if value is None else value
