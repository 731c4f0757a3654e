"""What happens at the end of an epoch: validation, the summary's row, and whether it was the best."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hpcreco import shards
from hpcreco.config import Store
from hpcreco.data.batch import Batch
from hpcreco.data.sharing import Share, sweep
from hpcreco.train import checkpoint, evaluation
from hpcreco.train.predictions import Made, YinfSink
from hpcreco.train.session import Session
from hpcreco.train.state import Progress, TrainState
from hpcreco.train.sums import Sums
from hpcreco.train.task import Outcome

LOG = logging.getLogger("hpcreco")

Row = dict[str, "float | int | str"]


class Validation(NamedTuple):
    """Sums over all events of the validation part, and how long they took."""

    sums: Sums
    seconds: float


def columns(session: Session) -> tuple[str, ...]:
    """Header of the summary: the legacy columns first, then what hpcreco adds."""
    metrics = session.task.column_names(session.run)
    return (
        "epoch",
        "train_loss",
        *(f"train_{name}" for name in metrics),
        "train_time",
        "valid_loss",
        *(f"valid_{name}" for name in metrics),
        "valid_time",
        "lr",
        "gradient_norm",
        "events",
        "steps",
        "stage",
        "train_rate",
        "data_time",
        "compute_time",
        "save_time",
        "memory_mb",
    )


def validate(session: Session, state: TrainState, beat: Callable[[], None]) -> Validation:
    """The validation events once over all ranks, storing yinf shards when due; `beat` is called after each batch."""
    part, run, store = session.validation, session.run, session.run.store
    assert part is not None
    began = time.monotonic()
    rank, ranks, budget = session.parallel.rank, session.parallel.size, session.micro_budget()

    def measure(work: Sequence[Share], store_batch: evaluation.Sink | None = None) -> Sums:
        def sink(batch: Batch, outcome: Outcome, sums: Sums) -> None:
            beat()
            if store_batch is not None:
                store_batch(batch, outcome, sums)

        return evaluation.evaluate(session.task, run, state.model, part, work, session.parallel.device, sink)

    if store is not None and state.progress.epoch % store.every_epochs == 0:
        whole_files = evaluation.shares(part, evaluation.my_files(part, rank, ranks), budget)
        with _yinf_sink(session, state, part.index, store) as sink:
            own = measure(whole_files, sink.take)
    else:
        limit = budget or part.largest
        own = measure(sweep(part.index, part.costs, rank, ranks, limit, count=run.validation_events))
    return Validation(own.total(session.parallel), time.monotonic() - began)


def _yinf_sink(session: Session, state: TrainState, index: shards.Index, store: Store) -> YinfSink:
    """Where validation stores predictions, tied to the weights by their digest."""
    progress, parallel = state.progress, session.parallel
    chosen = set(range(0, len(index.paths), store.every_samples))
    digest = checkpoint.digest(state.model.state_dict())
    made = Made(progress.epoch, progress.step, "during training", digest, parallel.name, parallel.size)
    folder = session.output_dir / store.outdir
    return YinfSink(session.task, session.run, state.model, index, chosen, folder, made)


def row(session: Session, state: TrainState, validation: Validation | None) -> Row:
    """The summary's row of the epoch that has just ended; keys are `columns`."""
    progress, clock, train = state.progress, state.clock, state.progress.sums
    names = session.task.column_names(session.run)
    seconds = clock.data + clock.compute
    train_columns = session.task.columns(train.metrics())
    valid_columns = dict.fromkeys(names, float("nan"))
    if validation is not None and validation.sums.coefficients:  # there was truth to compare with
        valid_columns = session.task.columns(validation.sums.metrics())
    return {
        "epoch": progress.epoch,
        "train_loss": train.loss(),
        **{f"train_{name}": train_columns[name] for name in names},
        "train_time": seconds,
        "valid_loss": validation.sums.loss() if validation else float("nan"),
        **{f"valid_{name}": valid_columns[name] for name in names},
        "valid_time": validation.seconds if validation else 0.0,
        "lr": float(state.optimization.optimizer.param_groups[0]["lr"]),
        "gradient_norm": progress.gradient_norm / max(1, progress.epoch_steps),
        "events": int(train.values["events"]),
        "steps": progress.epoch_steps,
        "stage": session.stages[progress.stage].name,
        "train_rate": float(train.values["cost"]) / max(seconds, 1e-9),
        "data_time": clock.data,
        "compute_time": clock.compute,
        "save_time": clock.save,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def say(row: Mapping[str, float | int | str]) -> None:
    """Log a row in one line."""
    unsaid = ("train_rate", "train_time", "valid_time")
    shown = "  ".join(
        f"{name} {value:.4g}"
        for name, value in row.items()
        if name.startswith(("train_", "valid_")) and name not in unsaid
    )
    LOG.info(
        "epoch %s: %.1f s, waited %.1f s for data  %s  lr %.3g",
        row["epoch"], row["train_time"], row["data_time"], shown, row["lr"],
    )  # fmt: skip


def judge(session: Session, progress: Progress, row: Mapping[str, float | int | str]) -> bool:
    """Is this the best validated epoch so far? Notes it in `progress`."""
    name, direction = session.task.monitor(session.run)
    value = float(row[name])
    if session.validation is None or value != value:
        return False
    better_by = session.run.early_stop.min_delta if session.run.early_stop else 0.0
    gain = None if progress.best is None else (value - progress.best) * (1 if direction == "max" else -1)
    if gain is None or gain > better_by:
        progress.best, progress.epochs_since_best = value, 0
        return True
    progress.epochs_since_best += 1
    return False
