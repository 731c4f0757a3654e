"""Reconstruction of shards: one yinf file each, made batch by batch, so that a stopped run loses one batch at most."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcreco import config, filewise, shards
from hpcreco.experiments.icecube import detector as _detector
from hpcreco.experiments.icecube import files as _files
from hpcreco.experiments.icecube.likelihood import Likelihood
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.reconstruct import model as _model
from hpcreco.experiments.icecube.reconstruct import tables
from hpcreco.experiments.icecube.reconstruct.events import given, observation, seed_names
from hpcreco.experiments.icecube.reconstruct.model import Model
from hpcreco.experiments.icecube.reconstruct.objective import by_differences
from hpcreco.experiments.icecube.reconstruct.pipeline import Reconstruction
from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings, settings
from hpcreco.experiments.icecube.reconstruct.skyscan import Answer
from hpcreco.experiments.icecube.yinf import YINF
from hpcreco.world import detect

VERSION = 2  # raise when the same input gives other numbers: finished files become stale


def reconstruct(
    which: str,
    inputs: Iterable[Path],
    out: Path,
    *,
    events: slice = slice(None),
    changes: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    device: str = "auto",
    **options: Any,
) -> int:
    """Write the yinf files of all pulses shards of `inputs` into `out`; the exit code of `filewise.run`."""
    paths = find(inputs)
    models = Models(which, changes or {}, assignments, device)
    prints = {path: models.fingerprint(path, events) for path in paths}
    jobs = [
        filewise.Job(path.name, (path,), (out / file_name(path),), prints[path], path.stat().st_size)
        for path in paths
    ]
    todo = {
        "finished": _unfinished,
        "title": "reconstruct",
        "report": out / "reconstruct_report.json",
        **options,
    }
    world = detect()
    if world.size > len(jobs) and not options.get("dry_run") and any(map(models.scans_the_sky, paths)):
        return _sharing(models, jobs, events, todo)
    return filewise.run(jobs, lambda job: _Work(models, job, events).done(), **todo)


def _sharing(models: Models, jobs: Sequence[filewise.Job], events: slice, todo: Mapping[str, Any]) -> int:
    """Fewer files than ranks: rank 0 does them, the other ranks fit pixels of their sky scans."""
    from hpcreco.collective import Alone, connect
    from hpcreco.experiments.icecube.reconstruct import sharing
    from hpcreco.filewise.signals import StopSignals

    collective = connect()
    if collective.rank:
        with StopSignals():  # rank 0 decides when it is over
            sharing.serve(collective, models.likelihood_of)
        return int(collective.broadcast(None))
    shared = sharing.Shared(collective)
    models.sky = shared

    def work(job: filewise.Job) -> dict[str, Any]:
        shared.source = str(job.inputs[0])
        return _Work(models, job, events).done()

    code = 1
    try:
        code = filewise.run(jobs, work, **{**todo, "collective": Alone()})
    finally:
        shared.close()
        collective.broadcast(code)
    return code


def find(inputs: Iterable[Path]) -> list[Path]:
    """All pulses shards that paths, folders and patterns lead to."""
    found = [path for pattern in inputs for path in _files.matching(str(pattern), "--inputs")]
    return list(dict.fromkeys(found))


def file_name(source: Path) -> str:
    """pulses-00001.h5 -> yinf-00001.h5; a name without the word gets it."""
    return (
        source.name.replace("pulses", "yinf", 1)
        if "pulses" in source.name
        else f"{source.stem}_yinf{source.suffix}"
    )


class Models:
    """Models by detector and generator, found once each."""

    def __init__(
        self, which: str, changes: Mapping[str, Any], assignments: Sequence[str], device: str
    ) -> None:
        self._which, self._changes, self._assignments, self._device = which, changes, assignments, device
        self._known: dict[str, tuple[Model, ReconstructionSettings]] = {}
        self._ready: dict[str, Reconstruction] = {}
        self.sky: Answer | None = None  # who fits the pixels of sky scans

    def scans_the_sky(self, path: Path) -> bool:
        """Do a shard's settings ask for sky scans?"""
        with shards.Shard(path, PULSES) as source:
            return self.of(source)[1].make_skyscan

    def likelihood_of(self, path: str) -> tuple[Likelihood, torch.device]:
        """The likelihood of a shard's events, and where it computes."""
        with shards.Shard(path, PULSES) as source:
            ready = self.ready(source)
        return ready.model.likelihood, ready.device

    def of(self, source: shards.Shard) -> tuple[Model, ReconstructionSettings]:
        """The model for a shard's events, and the settings that hold."""
        key = self._key(source)
        if key not in self._known:
            array = _detector.beside(source.path, source.attributes["detector_sha256"])
            model = _model.find(self._which, array, source.attributes.get("generator"))
            raw = {**model.raw_settings, **self._changes}
            self._known[key] = model, settings(config.override(raw, list(self._assignments)))
        return self._known[key]

    def ready(self, source: shards.Shard) -> Reconstruction:
        """The model at work on the chosen device."""
        key = self._key(source)
        if key not in self._ready:
            from hpcreco.parallel import node

            model, chosen = self.of(source)
            wanted = None if self._device == "auto" else self._device
            model.likelihood.to("cpu" if wanted == "cpu" else node.choose_device(detect(), wanted))
            self._ready[key] = Reconstruction(model, chosen, self.sky)
        return self._ready[key]

    def fingerprint(self, path: Path, events: slice) -> str:
        """Digest of all that decides the result for a shard."""
        with shards.Shard(path, PULSES) as source:
            model, chosen = self.of(source)
            content = [VERSION, model.digest, chosen.model_dump(exclude={"batch_size"}), source.digest]
        return _model.digest_of({"content": content, "events": [events.start, events.stop]})

    @staticmethod
    def _key(source: shards.Shard) -> str:
        return _model.digest_of(
            {name: source.attributes.get(name) for name in ("detector_sha256", "generator")}
        )


def _unfinished(job: filewise.Job) -> str | None:
    """Why the job's yinf file has to be made (again), or None."""
    target = job.outputs[0]
    if not target.exists():
        return "missing"
    try:
        with shards.Shard(target, YINF) as made:
            same = made.attributes.get("fingerprint") == job.fingerprint
    except shards.ShardError as error:
        return f"broken: {error}"
    return None if same else "stale: made from another shard, by another model, or with other settings"


class _Work:
    """One shard: its batches as files of their own beside the target, which they become at the end."""

    def __init__(self, models: Models, job: filewise.Job, events: slice) -> None:
        self._models, self._job, self._events = models, job, events
        self._target = job.outputs[0]
        self._parts = self._target.with_name(f".{self._target.stem}.parts")

    def done(self) -> dict[str, Any]:
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
