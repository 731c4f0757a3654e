"""One shard fitted batch by batch, so that a stopped run loses one batch at most."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import filewise, shards
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.reconstruct import tables
from hpcreco.experiments.icecube.reconstruct.events import given, observation, seed_names
from hpcreco.experiments.icecube.reconstruct.models import Models
from hpcreco.experiments.icecube.reconstruct.objective import by_differences
from hpcreco.experiments.icecube.reconstruct.pipeline import Reconstruction
from hpcreco.experiments.icecube.yinf import YINF


class ShardFit:
    """One shard: its batches as files of their own beside the target, which they become at the end."""

    def __init__(self, models: Models, job: filewise.Job, events: slice) -> None:
        self._models, self._job, self._events = models, job, events
        self._target = job.outputs[0]
        self._parts = self._target.with_name(f".{self._target.stem}.parts")

    def done(self) -> dict[str, Any]:
        """Fit what is not yet fitted and write the target; numbers for the run report."""
        before = by_differences.total()
        with shards.Shard(self._job.inputs[0], PULSES) as source:
            chosen = range(*self._events.indices(source.n_events))
            reconstruction = self._models.ready(source)
            size = reconstruction.settings.batch_size
            batches = [chosen[first : first + size] for first in range(0, len(chosen), size)]
            parts = [self._part(source, reconstruction, batch) for batch in batches]
            self._join(source, reconstruction, parts)
        shutil.rmtree(self._parts, ignore_errors=True)
        differences = by_differences.total() - before
        return {"events": len(chosen)} | ({"hessians_by_differences": differences} if differences else {})

    def _part(self, source: shards.Shard, reconstruction: Reconstruction, batch: range) -> Path:
        path = self._parts / f"{batch.start:08d}-{len(batch)}.h5"
        if self._usable(path, len(batch)):
            return path
        names = seed_names(source, reconstruction.settings)
        known = given(source, batch, names)
        rows = reconstruction(observation(source, batch, names), known)
        ids = source.event_ids
        self._write(
            path,
            source,
            reconstruction,
            ((int(ids[event]), row) for event, row in zip(batch, rows, strict=True)),
        )
        return path

    def _usable(self, path: Path, count: int) -> bool:
        if not path.exists():
            return False
        try:
            with shards.Shard(path, YINF) as part:
                return part.attributes.get("fingerprint") == self._job.fingerprint and part.n_events == count
        except shards.ShardError:
            return False

    def _join(self, source: shards.Shard, reconstruction: Reconstruction, parts: Sequence[Path]) -> None:
        self._write(self._target, source, reconstruction, _events_of(parts))

    def _write(
        self,
        path: Path,
        source: shards.Shard,
        reconstruction: Reconstruction,
        events: Iterable[tuple[int, Mapping[str, Mapping[str, Any]]]],
    ) -> None:
        columns = _columns(reconstruction)
        path.parent.mkdir(parents=True, exist_ok=True)
        with shards.ShardWriter(path, YINF, self._attributes(source, reconstruction), columns) as writer:
            for number, rows in events:
                writer.append(number, rows)

    def _attributes(self, source: shards.Shard, reconstruction: Reconstruction) -> dict[str, Any]:
        model, chosen = reconstruction.model, reconstruction.settings
        log = [name for name, flag in zip(model.trafo.names, model.trafo.log, strict=True) if flag]
        return {
            "experiment": "icecube",
            "epoch": 0,
            "step": 0,
            "checkpoint": model.where,
            "checkpoint_digest": model.digest,
            "input_file": str(source.path),
            "input_digest": source.digest,
            "backend": "serial",
            "ranks": 1,
            "detector_sha256": source.attributes["detector_sha256"],
            "free": list(reconstruction.space.free_names),
            "log": log,
            "seeds": list(reconstruction.seed_labels),
            "settings": chosen.model_dump(mode="json"),
            "model": model.where,
            "fingerprint": self._job.fingerprint,
        }


def _columns(reconstruction: Reconstruction) -> dict[str, tuple[str, ...]]:
    names, free = reconstruction.model.names, reconstruction.space.free_names
    pairs = tuple(f"{row}*{column}" for row in free for column in free)
    matrices = [field.name for table in tables.TABLES if table.name == "covariance" for field in table.fields]
    return dict.fromkeys(tables.BY_PARAMETER, names) | dict.fromkeys(
        (f"covariance/{name}" for name in matrices), pairs
    )


def _events_of(parts: Sequence[Path]) -> Iterator[tuple[int, dict[str, dict[str, Any]]]]:
    """Events of the parts in order, as they were written."""
    per_event = {table.name for table in YINF.tables if not table.ragged}
    for path in parts:
        with shards.Shard(path, YINF) as part:
            ids = part.event_ids
            for event in range(part.n_events):
                rows = {}
                for table in part.tables:
                    fields = part.read(event, table)
                    rows[table] = {
                        name: np.asarray(array[0]) if table in per_event else array
                        for name, array in fields.items()
                    }
                yield int(ids[event]), rows
