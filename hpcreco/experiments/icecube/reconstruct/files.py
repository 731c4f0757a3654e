"""Reconstruction of shards: one yinf file each, shared out over ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcreco import filewise
from hpcreco.experiments.icecube import files as _files
from hpcreco.experiments.icecube.reconstruct.models import Models
from hpcreco.experiments.icecube.reconstruct.shard_fit import ShardFit
from hpcreco.experiments.icecube.yinf import YINF
from hpcreco.world import detect


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
    return filewise.run(jobs, lambda job: ShardFit(models, job, events).done(), **todo)


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
        return ShardFit(models, job, events).done()

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


def _unfinished(job: filewise.Job) -> str | None:
    """Why the job's yinf file has to be made (again), or None."""
    otherwise = "stale: made from another shard, by another model, or with other settings"
    return filewise.unfinished(job.outputs[0], "fingerprint", job.fingerprint, otherwise, YINF)
