"""The keys of an IceCube config: those of the original package, and hpcreco's own, which by default change nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from hpcreco.config import Cadence, EarlyStop, Parallel, Strict, within_budget
from hpcreco.experiments.icecube.settings import LossOptions

#: keys that are accepted and change nothing, and why; `*` stands for any name
INERT = {
    "training_settings.evaluation_frequency": "there is no evaluation module; every validation fills a summary row",
    "data_iterator_settings.*.num_splits": "events are read one by one",
    "data_iterator_settings.*.file_capacity": "shards need no queue of files",
    "data_iterator_settings.*.batch_capacity": "shards need no queue of batches",
    "data_iterator_settings.*.dataset_capacity": "shards need no queue",
    "data_iterator_settings.*.num_jobs": "set training_settings.workers for threads that read",
    "data_iterator_settings.*.num_add_files": "a step's events are drawn from all shards",
    "data_iterator_settings.*.num_repetitions": "every pass is over all events",
    "data_iterator_settings.*.pick_random_files_forever": "training ends after num_training_iterations",
    "data_iterator_settings.*.sample_randomly": "training is shuffled, everything else goes in order",
    "evaluation_module_settings": "validation evaluates the loss and its terms",
    "model_manager_settings.model_manager_class": "there is one way to keep a model",
    "data_trafo_settings.float_precision": "statistics are in float64",
    "data_handler_settings.data_settings.pulse_key": "shards hold one series of pulses; `convert` chooses it",
    "data_handler_settings.data_settings.dom_exclusions_key": "shards hold the exclusions",
    "data_handler_settings.data_settings.time_exclusions_key": "shards hold the exclusions",
    "data_handler_settings.data_settings.float_precision": "shards are float32",
    "data_handler_settings.label_settings.label_key": "shards hold one set of true parameters; `convert` chooses it",
    "data_handler_settings.label_settings.snowstorm_key": "systematics are parameters like others",
}


class Optimizing(Strict):
    """`optimizer_settings:`; arguments in Keras' words."""

    learning_rate: Any = 1e-3
    beta_1: float | None = None
    beta_2: float | None = None
    epsilon: float | None = None
    amsgrad: bool | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    rho: float | None = None


class LossKeywords(Strict):
    """`additional_loss_module_kwargs:`"""

    normalize_by_total_charge: bool = False


class Training(Strict):
    """`training_settings:`"""

    optimizer_name: str = "Adam"
    optimizer_settings: Optimizing = Optimizing()
    l1_regularization: float = Field(default=0.0, ge=0)
    l2_regularization: float = Field(default=0.0, ge=0)
    clip_gradients_value: float | None = Field(default=None, gt=0)
    remove_nan_gradients: bool = False
    validation_frequency: int = Field(default=100, ge=1)
    evaluation_frequency: int | None = None
    save_frequency: int = Field(default=500, ge=1)
    num_training_iterations: int = Field(default=1_000_000, ge=0)
    additional_loss_module_kwargs: LossKeywords = LossKeywords()
    # hpcreco's own
    keep_checkpoints: int | None = Field(default=3, ge=1)
    report: Cadence = Cadence(every=30, unit="seconds")
    init_from: str | None = None
    early_stop: EarlyStop | None = None
    precision: str = "float32"
    workers: int = Field(default=1, ge=1)
    prefetch: int = Field(default=2, ge=1)
    stage: Path | None = None  # folder on each node's own storage: shards are copied there, unpacked
    micro_cost: float = Field(default=math.inf, gt=0)


class Iterator(Strict):
    """One of `data_iterator_settings:`"""

    batch_size: int = Field(default=32, ge=1)
    input_data: list[str] = Field(default_factory=list)
    num_splits: int | None = None
    file_capacity: int | None = None
    batch_capacity: int | None = None
    dataset_capacity: int | None = None
    num_jobs: int | None = None
    num_add_files: int | None = None
    num_repetitions: int | None = None
    sample_randomly: bool | None = None
    pick_random_files_forever: bool | None = None
    # hpcreco's own
    num_batches: int | None = Field(default=1, ge=1)  # of a validation; null: all events
    cost_budget: float | None = Field(default=None, gt=0)  # of a training step, instead of batch_size events
    rank_budget: float | None = Field(
        default=None, gt=0
    )  # a rank's part of cost_budget: steps of equal parts

    _within_budget = field_validator("rank_budget")(within_budget)

    @field_validator("input_data", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else (value or [])


class Iterators(Strict):
    """`data_iterator_settings:`"""

    training: Iterator | None = None
    trafo: Iterator | None = None
    validation: Iterator | None = None
    test: Iterator | None = None


class LossConfig(LossOptions):
    """`config:` of a loss module; the original's keys, and our options."""

    float_precision: str = "float32"
    loss_function_name: str | None = None


class LossModule(Strict):
    """An entry of `loss_module_settings:`"""

    loss_module: str = "DefaultLossModule"
    config: LossConfig = LossConfig()
    loss_module_weight: float = 1.0


class Evaluation(Strict):
    """`evaluation_module_settings:`"""

    evaluation_module: str | None = None
    config: dict[str, Any] | None = None


class Manager(Strict):
    """`config:` of `model_manager_settings:`"""

    manager_dir: str | None = None
    I3ParticleMapping: dict[str, str] = Field(default_factory=dict)


class Management(Strict):
    """`model_manager_settings:`"""

    model_manager_class: str | None = None
    restore_model: bool = True
    config: Manager = Manager()


class TrafoSettings(Strict):
    """`data_trafo_settings:`"""

    model_dir: str | None = None
    norm_constant: float = Field(default=1e-6, gt=0)
    num_batches: int | None = Field(default=5000, ge=1)
    float_precision: str = "float64"


class DataSettings(Strict):
    """`data_settings:` of the data module."""

    pulse_key: str | None = None
    dom_exclusions_key: str | None = None
    time_exclusions_key: str | None = None
    float_precision: str | None = None
    add_charge_quantiles: bool = False
    discard_pulses_from_excluded_doms: bool = False
    # hpcreco's own, and the second generation's
    time_window_mode: str = "readout"
    time_window_buffer: float = Field(default=0.0, ge=0)


class LabelSettings(Strict):
    """`label_settings:` of the label module."""

    shift_cascade_vertex: bool = False
    trafo_log: list[bool] | bool = False
    label_key: str | None = None
    additional_labels: list[str] = Field(default_factory=list)
    num_cascades: int | None = None
    snowstorm_key: str | None = None
    num_snowstorm_params: int = Field(default=0, ge=0)
    float_precision: str | None = None

    @field_validator("additional_labels", mode="before")
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return value or []


class FilterSettings(Strict):
    """`filter_settings:`; constraints are ``[table, column, operator, threshold]``."""

    constraints: list[tuple[str, str, str, float]] = Field(default_factory=list)

    @field_validator("constraints", mode="before")
    @classmethod
    def _none_is_none(cls, value: Any) -> Any:
        return value or []


class Handler(Strict):
    """`data_handler_settings:`"""

    data_handler: str | None = None
    data_module: str | None = None
    data_settings: DataSettings = DataSettings()
    label_module: str | None = None
    label_settings: LabelSettings = LabelSettings()
    weight_module: str | None = None
    weight_settings: dict[str, Any] | None = None
    misc_module: str | None = None
    misc_settings: dict[str, Any] | None = None
    filter_module: str | None = None
    filter_settings: FilterSettings = FilterSettings()


class Model(Strict):
    """`model_settings:`, and each of its `multi_source_bases:`"""

    model_class: str
    config: dict[str, Any] = Field(default_factory=dict)
    load_dir: str | None = None
    data_trafo_settings: TrafoSettings | None = None
    decoder_settings: dict[str, Any] | None = None
    decoder_charge_settings: dict[str, Any] | None = None
    multi_source_bases: dict[str, Model] = Field(default_factory=dict)
    # hpcreco's own: null leaves it to whether the part is loaded and something else is new
    trainable: bool | None = None
    freeze: list[str] = Field(default_factory=list)
    unfreeze: list[str] = Field(default_factory=list)

    @field_validator("config", "multi_source_bases", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value


class Dialect(Strict):
    """A whole config."""

    unique_name: str = "model"
    training_settings: Training = Training()
    reconstruction_settings: dict[str, Any] = Field(default_factory=dict)
    model_manager_settings: Management = Management()
    data_iterator_settings: Iterators = Iterators()
    loss_module_settings: list[LossModule]
    evaluation_module_settings: Evaluation = Evaluation()
    data_trafo_settings: TrafoSettings = TrafoSettings()
    data_handler_settings: Handler = Handler()
    model_settings: Model
    # hpcreco's own
    experiment: str = "icecube"
    output_dir: str | None = None
    seed: int = 0
    detector: str | None = None
    backend: str | None = None
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    parallel: Parallel = Parallel()
    rank_files: bool = False
    tensorboard: bool = False

    @field_validator("loss_module_settings", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value
