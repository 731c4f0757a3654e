"""One training job from its first message to its exit code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hpcreco import attempts, experiment, parallel
from hpcreco.config import Run
from hpcreco.parallel.timeline import OFF, Recorder, Timeline
from hpcreco.parallel.watchdog import Watchdog, abort_on_error
from hpcreco.train import start
from hpcreco.train.lock import RunLock
from hpcreco.train.loop import Loop
from hpcreco.train.progress import start_log, stop_log
from hpcreco.train.session import Session, on_root, open_part
from hpcreco.train.state import TrainState
from hpcreco.train.stop import EXIT_STOPPED, Stop
from hpcreco.world import World

LOG = logging.getLogger("hpcreco")


def train(
    run: Run,
    found: experiment.Experiment,
    world: World,
    request: start.Request,
    *,
    verbose: bool = False,
    timeline: Path | None = None,
) -> int:
    """Train `run`; returns the exit code: 0 done, 75 stopped and to be resumed.

    timeline: a file for a trace of what the ranks did during a few steps.
    """
    device = None if run.device == "auto" else run.device
    # Signals are remembered from before the ranks meet until they have parted: both take seconds.
    with Stop() as stop:
        ranks = parallel.open(run.backend, world, output_dir=run.output_dir, device=device)
        if run.threads is not None:
            torch.set_num_threads(run.threads)
        try:
            with abort_on_error(ranks), _locked(run, ranks):
                start_log(run.output_dir, ranks.rank, verbose=verbose, rank_files=run.rank_files)
                recorder = OFF if timeline is None else Recorder(timeline, ranks, LOG.info)
                return _train(run, found, ranks, request, stop, recorder)
        finally:
            stop_log()
            ranks.close()


def _train(
    run: Run,
    found: experiment.Experiment,
    ranks: parallel.Parallel,
    request: start.Request,
    stop: Stop,
    timeline: Timeline,
) -> int:
    task = found.task_of(run)
    with Watchdog(run.parallel.timeout, ranks) as watchdog:
        session = Session(
            run,
            found,
            task,
            ranks,
            open_part(found, task, run, ranks, "train", watchdog.beat),
            open_part(found, task, run, ranks, "validation", watchdog.beat),
        )
        state = start.begin(session, request)
        start.keep_config(session)
        _introduce(session, state.model)
        if state.progress.ended:
            LOG.info("nothing to do: %s", state.progress.ended)
            return 0
        resumed = state.progress.step > 0
        loop = Loop(session, state, stop, watchdog, start.summaries(session, state, resumed), timeline)
        code = _recorded(loop, session, state, stop)
        if code == 0:
            LOG.info("done: %s; results in %s", state.progress.ended, run.output_dir)
        return code


def _recorded(loop: Loop, session: Session, state: TrainState, stop: Stop) -> int:
    """Run the loop; rank 0 notes in ``attempts.csv`` that it began and how it ended, for whoever has to requeue."""
    if not session.root:
        return loop.run()
    record = attempts.Record(session.output_dir / "attempts.csv", session.parallel.size)
    record.start(state.progress.step, attempts.newest_checkpoint(session.output_dir))
    try:
        code = loop.run()
    except Exception as error:
        record.end("failed", state.progress.step, f"{type(error).__name__}: {error}")
        raise
    if code == EXIT_STOPPED:
        record.end("stopped", state.progress.step, stop.reason or "a request to another rank")
    else:
        record.end("done", state.progress.step, state.progress.ended)
    return code


def _introduce(session: Session, model: object) -> None:
    ranks, training, validation = session.parallel, session.training, session.validation
    parameters = sum(p.numel() for p in model.parameters())  # type: ignore[attr-defined]
    LOG.info(
        "%s: %d rank(s) on %s (%s), %s parameters",
        session.experiment.name,
        ranks.size,
        ranks.name,
        ranks.device,
        f"{parameters:,}",
    )
    for name, part in (("training", training), ("validation", validation)):
        if part is not None:
            files = f"{len(part.index.paths)} files, " if part.index.on_disk else "made, "
            LOG.info("%s: %s%d events", name, files, part.index.n_events)
    for note in session.run.notes:
        LOG.info("%s", note)


@contextmanager
def _locked(run: Run, ranks: parallel.Parallel) -> Iterator[None]:
    """Rank 0 holds the run's lock for everybody."""
    lock = RunLock(run.output_dir)
    on_root(ranks, lambda: lock.__enter__() and None)
    try:
        yield
    finally:
        if ranks.rank == 0:
            lock.__exit__()
