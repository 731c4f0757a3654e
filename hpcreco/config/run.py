"""`Run`, all that the core knows of a config, and its sections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SerializeAsAny, ValidationInfo, model_validator

from hpcreco.config.checking import Strict


class Cadence(Strict):
    """How often: ``every`` so many ``unit``s. Written ``{every: 2, unit: epochs}`` or ``2 epochs``."""

    every: float = Field(gt=0)
    unit: Literal["steps", "epochs", "seconds"] = "epochs"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"every": value}
        if isinstance(value, str):
            number, _, unit = value.strip().partition(" ")
            unit = unit.strip() or "epochs"
            return {"every": float(number), "unit": unit if unit.endswith("s") else unit + "s"}
        return value


class Steps(Strict):
    """How events become global steps.

    files: one shard per rank and step (the legacy batch_size of 1); events: `size` events per step; cost: events up to
    a summed cost of `size` per step, and with `rank_size` packed into parts of that cost, which even out the ranks. The
    last two do not depend on the number of ranks. A rank's share is cut into micro-batches of at most `micro_cost`.
    """

    mode: Literal["files", "events", "cost"] = "files"
    size: float = Field(default=1, gt=0)
    rank_size: float | None = Field(default=None, gt=0)
    micro_cost: float = Field(default=math.inf, gt=0)


def within_budget(rank_budget: float | None, info: ValidationInfo) -> float | None:
    """Validates the field `rank_budget` of a dialect, which cuts its `cost_budget`, declared before, into parts."""
    if rank_budget is None:
        return None
    budget = info.data.get("cost_budget")
    if budget is None:
        raise ValueError("it is a rank's part of a step of cost_budget; give that too")
    if rank_budget > budget:
        raise ValueError(f"a rank's part of a step cannot exceed the step's cost_budget of {budget:g}")
    return rank_budget


class Loading(Strict):
    """Reader threads per rank, steps read ahead, and a folder on each node's own storage to copy the shards to."""

    workers: int = Field(default=1, ge=1)
    prefetch: int = Field(default=2, ge=1)
    stage: Path | None = None


class Store(Strict):
    """Write yinf shards of every n-th validation shard after every n-th epoch into output_dir/outdir."""

    every_epochs: int = Field(default=1, ge=1)
    every_samples: int = Field(default=1, ge=1)
    outdir: str = "inference"


class EarlyStop(Strict):
    """Stop when the monitored column has not improved by `min_delta` for `patience` validations."""

    patience: int = Field(ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class Parallel(Strict):
    """How ranks work together.

    timeout: seconds without progress after which the watchdog ends the job. bucket_mb: gradients are summed over ranks
    in pieces of so many MB; overlap: while the last backward of a step still computes the next ones. compression:
    gradients travel as float32 (none) or as 16 bits each (fp16: 11 bits of precision; bf16: 8, not with Horovod). That
    halves the bytes but costs work on both sides: it pays on slow networks, and costs time between ranks that share
    memory. sync_batch_norm: batch statistics are those of all ranks.
    """

    timeout: float = Field(default=1800.0, gt=0)
    bucket_mb: float = Field(default=1.0, gt=0)
    overlap: bool = True
    compression: Literal["none", "fp16", "bf16"] = "none"
    sync_batch_norm: bool = False


class Run(Strict):
    """Everything the core needs to train or infer; an experiment's own settings ride along in `settings`."""

    experiment: str
    output_dir: Path
    settings: SerializeAsAny[BaseModel]
    trains: bool = True  # False: the config names no training data, so `train --resume` infers
    seed: int = 0
    epochs: int | None = Field(default=None, ge=0)
    iterations: int | None = Field(default=None, ge=0)
    steps: Steps = Steps()
    loading: Loading = Loading()
    save: Cadence = Cadence(every=1)
    validate_every: Cadence = Cadence(every=1)
    validation_events: int | None = Field(default=None, ge=1)  # spread evenly over all; None: every one
    report: Cadence = Cadence(every=30, unit="seconds")
    store: Store | None = None
    start_epoch: int | None = Field(default=None, ge=0)
    resume: Literal["auto"] | None = None  # what `train` does without --resume
    init_from: str | None = None
    transfer: bool = False
    keep_checkpoints: int | None = Field(default=None, ge=1)
    early_stop: EarlyStop | None = None
    grad_clip: float | None = Field(default=None, gt=0)
    amp: bool = False
    precision: Literal["float32", "float64"] = "float32"
    backend: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    parallel: Parallel = Parallel()
    rank_files: bool = False
    tensorboard: bool = False
    notes: tuple[str, ...] = ()  # what the user should know of this config: logged at the start

    @model_validator(mode="after")
    def _ends_somehow(self) -> Run:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("give epochs or iterations, not both")
        if self.precision == "float64" and self.parallel.compression != "none":
            raise ValueError(
                "parallel.compression sends 16 bits of each gradient: choose none, or precision float32"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """What must not change between a checkpoint and its continuation, as plain JSON values."""
        names = ("experiment", "seed", "settings", "steps", "grad_clip", "amp", "precision")
        dumped = self.model_dump(mode="json", include=set(names))
        ignored = getattr(self.settings, "not_identity", ())
        dumped["settings"] = {k: v for k, v in dumped["settings"].items() if k not in ignored}
        return dumped


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Keys at which two plain configs differ, as ``key: old -> new``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        out = []
        for key in sorted({*old, *new}, key=str):
            out += differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        return out
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]
