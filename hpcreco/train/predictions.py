"""Predictions on their way into yinf shards, event by event, as they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hpcreco import shards, yinf
from hpcreco.config import Run
from hpcreco.data.batch import Batch
from hpcreco.train.sums import Sums
from hpcreco.train.task import Outcome, Task

Rows = dict[str, dict[str, np.ndarray]]


class PredictionError(RuntimeError):
    """The task's predictions do not line up with the batch."""

    exit_code = 1


@dataclass(frozen=True)
class Made:
    """By which checkpoint predictions were made, and how."""

    epoch: int
    step: int
    checkpoint: str
    digest: str
    backend: str = "serial"
    ranks: int = 1


class YinfWriter:
    """Writes the yinf shard of one input shard; `take` is called with its batches in order.

    Complete or not at all: an error, or a missing event, leaves no file.
    """

    def __init__(
        self, task: Task, run: Run, model: Any, index: shards.Index, number: int, target: Path, made: Made
    ) -> None:
        self._task, self._run, self._model = task, run, model
        self._first, self._number = np.asarray(index.first, np.int64), number
        self._ids = index.event_ids[self._first[number] : self._first[number + 1]]
        self._sums, self._next = Sums(), 0
        source = Path(index.paths[number])
        schema = task.yinf(run)
        self._single = {table.name for table in schema.tables if not table.ragged}
        attributes = {
            **(taken_over(schema, source) if index.on_disk else {}),
            **task.yinf_attributes(run),
            "experiment": run.experiment,
            "epoch": made.epoch,
            "step": made.step,
            "checkpoint": made.checkpoint,
            "checkpoint_digest": made.digest,
            "input_file": str(source),
            "input_digest": index.digests[number],
            "backend": made.backend,
            "ranks": made.ranks,
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._writer = shards.ShardWriter(target, schema, attributes)

    def __enter__(self) -> YinfWriter:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._next != len(self._ids):
            error = PredictionError(f"{self._target}: {self._next} of {len(self._ids)} events were predicted")
            self._writer.__exit__(type(error), error, None)
            raise error
        if kind is None:
            self._writer.set_attribute("sums", self._sums.plain())
        self._writer.__exit__(kind, error, trace)

    def take(self, batch: Batch, outcome: Outcome, sums: Sums) -> None:
        """Append the predictions for the events of `batch`."""
        for (shard, event), rows in zip(
            batch.refs, per_event(batch, self._task.predict(self._model, batch, outcome)), strict=True
        ):
            if shard != self._number or event != self._next:
                raise PredictionError(
                    f"{self._target}: expected event {self._next}, was given event {event} of file {shard}"
                )
            # one row per event is given to the writer without the axis of rows
            for table in self._single & rows.keys():
                rows[table] = {field: array[0] for field, array in rows[table].items()}
            self._writer.append(int(self._ids[event]), rows)
            self._next += 1
        self._sums.merge(sums)


def taken_over(schema: shards.Schema, source: Path) -> dict[str, Any]:
    """The attributes of the input shard that the yinf `schema` has too, e.g. of which TPC its events are."""
    own = {a.name for a in schema.attributes} - {a.name for a in yinf.ATTRIBUTES}
    with shards.Shard(source) as shard:
        return {name: shard.attributes[name] for name in sorted(own) if name in shard.attributes}


def per_event(batch: Batch, tables: Mapping[str, Mapping[str, Any]]) -> list[Rows]:
    """Cut the predicted tables at the batch's offsets; a table the batch does not have holds one row per event."""
    events: list[Rows] = [{} for _ in range(batch.n_events)]
    for table, fields in tables.items():
        offsets = batch.offsets[table].tolist() if table in batch.offsets else list(range(batch.n_events + 1))
        for field, tensor in fields.items():
            array = tensor.detach().cpu().numpy()
            if len(array) != offsets[-1]:
                raise PredictionError(
                    f"{table}/{field}: {len(array)} predicted rows for {offsets[-1]} rows of the batch"
                )
            for event, (lo, hi) in zip(events, pairwise(offsets), strict=True):
                event.setdefault(table, {})[field] = array[lo:hi]
    return events


class YinfSink:
    """Stores the predictions of the chosen shards while validation runs over them; shards come one after another."""

    def __init__(
        self,
        task: Task,
        run: Run,
        model: Any,
        index: shards.Index,
        chosen: set[int],
        folder: Path,
        made: Made,
    ) -> None:
        self._make = lambda number: YinfWriter(
            task,
            run,
            model,
            index,
            number,
            folder / yinf.file_name(made.epoch, Path(index.paths[number])),
            made,
        )
        self._chosen = chosen
        self._number: int | None = None
        self._open: YinfWriter | None = None

    def __enter__(self) -> YinfSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.__exit__(kind, error, trace)

    def take(self, batch: Batch, outcome: Outcome, sums: Sums) -> None:
        """Pass a batch, all of one shard, to the writer of that shard if it is a chosen one."""
        number = batch.refs[0].shard
        if number != self._number:
            if self._open is not None:
                self._open.__exit__(None, None, None)
                self._open = None
            self._number = number
            if number in self._chosen:
                self._open = self._make(number).__enter__()
        if self._open is not None:
            self._open.take(batch, outcome, sums)
