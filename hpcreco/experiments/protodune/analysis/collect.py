"""All of a run's yinf files as samples, one per event type; a file's statistics are computed once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcreco import filewise, shards
from hpcreco.experiments.protodune.analysis import kept, statistics
from hpcreco.experiments.protodune.analysis.join import JoinError, find_yinf
from hpcreco.experiments.protodune.analysis.statistics import Options, Source, Statistics

FOLDER = "statistics"


@dataclass(frozen=True)
class Inputs:
    """Files of one report: a run (or folder, or file), its epoch, and where other files are if not where expected."""

    run: Path
    epoch: int | None = None
    xy_folders: tuple[Path, ...] = ()
    mask: Path | None = None
    particles: Path | None = None

    @property
    def base(self) -> Path:
        """The folder whose report this is."""
        return self.run.parent if self.run.is_file() else self.run


@dataclass
class Collected:
    """The samples of one epoch of a run, and what their truth means."""

    epoch: int
    files: int
    samples: list[Statistics]
    checkpoints: set[str]

    def describe(self, all_truth: bool) -> str:
        """Which voxels count as true."""
        cuts = sorted({s.meaning for s in self.samples if s.meaning})
        if not cuts:
            return "unknown: data without truth"
        whole = "all true voxels" if all_truth else "the true ones among the candidates"
        return f"{', '.join(cuts)}; efficiency of {whole}"


def collect(inputs: Inputs, options: Options, force: bool = False) -> Collected | None:
    """Statistics of all files, shared out over ranks and array tasks; None while some are still missing.

    Raises JoinError or YinfError before any work when files are missing or do not belong together.
    """
    epoch, paths = choose(inputs.run, inputs.epoch)
    masks = [p for group in find_yinf(inputs.mask).values() for p in group] if inputs.mask else []
    sources = [statistics.plan(path, options, inputs.xy_folders, masks, inputs.particles) for path in paths]
    _check_once(sources)
    jobs = {_place(inputs.base, source): source for source in sources}
    code = filewise.run(
        [
            filewise.Job(path.stem, (source.yinf, source.xy), (path,), source.fingerprint, source.size)
            for path, source in jobs.items()
        ],
        lambda job: _work(jobs[job.outputs[0]], job.outputs[0], options, inputs.xy_folders),
        finished=_finished,
        title="report",
        force=force,
    )
    if code or any(_finished_file(path, source.fingerprint) for path, source in jobs.items()):
        return None
    by_name: dict[str, Statistics] = {}
    for path in jobs:
        made, _ = kept.read(path)
        if made.sample.name in by_name:
            by_name[made.sample.name].merge(made)
        else:
            by_name[made.sample.name] = made
    checkpoints = {source.checkpoint for source in sources}
    return Collected(epoch, len(paths), [by_name[n] for n in sorted(by_name)], checkpoints)


def choose(run: Path, epoch: int | None) -> tuple[int, list[Path]]:
    """The epoch to report on and its yinf files; the last one unless named."""
    if not run.exists():
        raise JoinError(f"there is no {run}")
    found = find_yinf(run)
    if not found:
        raise JoinError(f"{run} holds no yinf files (epoch<e>-..._yinf....h5); run `hpcreco infer` first")
    if epoch is not None and epoch not in found:
        raise JoinError(
            f"{run} holds no yinf files of epoch {epoch}; there are epochs {', '.join(map(str, sorted(found)))}"
        )
    chosen = max(found) if epoch is None else epoch
    return chosen, found[chosen]


def _check_once(sources: Sequence[Source]) -> None:
    seen: dict[Path, Path] = {}
    for source in sources:
        xy = source.xy.resolve()
        if xy in seen:
            raise JoinError(
                f"{seen[xy]} and {source.yinf} are both of {xy}: its events would count twice; give the folder of one"
            )
        seen[xy] = source.yinf


def _place(base: Path, source: Source) -> Path:
    """Where a file's statistics are kept; the name does not start like a yinf file's."""
    inner = source.yinf.relative_to(base) if source.yinf.is_relative_to(base) else Path(source.yinf.name)
    return base / FOLDER / ("statistics-" + "-".join(inner.with_suffix(".h5").parts))


def _work(source: Source, path: Path, options: Options, xy_folders: Sequence[Path]) -> dict[str, int]:
    made = statistics.compute(source, options, xy_folders)
    kept.write(path, made, source.fingerprint)
    return {"events": len(made.sample.keys)}


def _finished(job: filewise.Job) -> str | None:
    return _finished_file(job.outputs[0], job.fingerprint)


def _finished_file(path: Path, fingerprint: str) -> str | None:
    """None when the statistics stand, else why not."""
    if not path.is_file():
        return "missing"
    try:
        with_digest = shards.read_artefact(path, kept.STATISTICS).attributes["fingerprint"]
    except shards.ShardError as error:
        return f"broken: {error}"
    return None if with_digest == fingerprint else "stale: other files, options or version"
