"""How a run begins: fresh, resumed, or from another run's weights."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from hpcreco.config import Run, differences
from hpcreco.train import checkpoint
from hpcreco.train.epoch import columns
from hpcreco.train.session import Session, on_root
from hpcreco.train.state import Progress, TrainState, select_trainable
from hpcreco.train.summary import Rows, Summary, TensorBoard

LOG = logging.getLogger("hpcreco")


class StartError(RuntimeError):
    """The run cannot begin as asked."""

    exit_code = 2


@dataclass(frozen=True)
class Request:
    """What the user asked for. resume: None (fresh), "last", "auto" or an epoch number."""

    resume: str | int | None = None
    overwrite: bool = False
    lenient: bool = False


def begin(session: Session, request: Request) -> TrainState:
    """Model, optimizer and progress of a fresh or resumed run, the same on every rank."""
    run = session.run
    content = on_root(session.parallel, lambda: _checkpoint_to_resume(session, request))
    if session.task.prepare is not None:
        on_root(session.parallel, lambda: session.task.prepare(run, session.training.index))  # type: ignore[misc, union-attr]
    model = session.new_model()
    if content is None:
        if run.init_from:
            _initialise(model, run.init_from, session)
        state = new_state(session, model, Progress())
    elif _is_donor(session, content):
        _transfer(model, content, "the checkpoint in output_dir")
        state = new_state(session, model, Progress(epoch=_donor_epoch(content, run)))
    else:
        checkpoint.load_into(model, content["model"], source="the checkpoint")
        state = new_state(session, model, Progress.from_plain(content["progress"]))
        state.restore(content)
        _reopen_if_longer(state.progress, run)
    _synchronise(model, session)
    return state


def summaries(session: Session, state: TrainState, resumed: bool) -> list[Rows]:
    """This rank's summary files, begun or cut to the epochs that are kept."""
    paths = [session.output_dir / "summaries.csv"] if session.root else []
    if session.run.rank_files:
        paths.append(session.output_dir / f"summaries_{session.parallel.rank}.csv")
    files: list[Rows] = [Summary(path, columns(session)) for path in paths]
    if session.root and session.run.tensorboard:
        files.append(TensorBoard(session.output_dir / "tensorboard"))
    for file in files:
        if resumed:
            file.resume(state.progress.epoch - 1)
        else:
            file.start()
    return files


def keep_config(session: Session) -> None:
    """Copy the run's config to ``configs/<next number>.yaml``."""
    if not session.root:
        return
    folder = session.output_dir / "configs"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.stem) for path in folder.glob("*.yaml") if path.stem.isdigit()]
    text = yaml.safe_dump(session.run.model_dump(mode="json"), sort_keys=False)
    (folder / f"{max(numbers, default=-1) + 1}.yaml").write_text(text)


def _checkpoint_to_resume(session: Session, request: Request) -> dict[str, Any] | None:
    """The content to go on from; the checkpoint folder is left holding nothing beyond it. Runs on rank 0."""
    output_dir, run = session.output_dir, session.run
    for leftover in checkpoint.folder(output_dir).glob(".*.part-*"):
        leftover.unlink()  # of a killed save; the run's lock is ours
    there = checkpoint.found(output_dir)
    if request.resume is None:
        if there and not request.overwrite:
            raise StartError(
                f"{checkpoint.folder(output_dir)} holds checkpoints up to epoch {there[-1].epoch}: continue with "
                "--resume, start again with --overwrite (deletes them), or choose another output_dir"
            )
        _clear(output_dir)
        return None
    if not there and (request.resume == "auto" or run.init_from):
        return None  # --resume of a run that has not begun: from init_from, or fresh
    if not there and run.transfer:
        raise StartError(
            f"--resume with transfer: true takes weights from a checkpoint in {checkpoint.folder(output_dir)}, and "
            "there is none. Name the run to take them from, no files need copying: --set "
            "train.init_from=RUN (or RUN@EPOCH, RUN@best); epochs then begin at 0"
        )
    wanted = request.resume if isinstance(request.resume, int) else None
    if wanted is None and request.resume == "last" and run.start_epoch is not None:
        wanted = run.start_epoch
    elif wanted is not None and run.start_epoch is not None and wanted != run.start_epoch:
        LOG.warning("--resume %d is used, not start_epoch: %d of the config", wanted, run.start_epoch)
    if wanted is not None:
        found = checkpoint.Found(checkpoint.of_epoch(output_dir, wanted), wanted, None)
        content = checkpoint.load(found.path)
        _set_aside(output_dir, found)
    else:
        latest = checkpoint.load_latest(output_dir, LOG.warning)
        if latest is None:
            raise StartError(
                f"--resume: {checkpoint.folder(output_dir)} holds no checkpoint; train without --resume first"
            )
        found, content = latest
        _set_aside(output_dir, found)
    if not _is_donor(session, content):
        _check_identity(session, content, found.path, request.lenient)
    LOG.info("resuming after %s", found.path.name)
    return content


def _is_donor(session: Session, content: Mapping[str, Any]) -> bool:
    """With `transfer: true`, is this the checkpoint of another training, whose weights alone are wanted?

    The run's own checkpoints are resumed like any run's, or a job that is requeued would begin again each time.
    """
    same = not differences(content["identity"], session.run.identity())
    own = same and content["digests"] == session.digests
    return session.run.transfer and not own


def _donor_epoch(content: Mapping[str, Any], run: Run) -> int:
    """The epoch to go on with after a transfer within output_dir, as the original counts: the donor's next one."""
    epoch = int(content["progress"]["epoch"])
    if run.epochs is not None and epoch >= run.epochs:
        raise StartError(
            f"transfer: the checkpoint is of epoch {epoch - 1}, so none of the {run.epochs} epochs of n_epochs is "
            "left; raise n_epochs, or use train.init_from, whose epochs begin at 0"
        )
    return epoch


def _check_identity(session: Session, content: dict[str, Any], path: Path, lenient: bool) -> None:
    changed = differences(content["identity"], session.run.identity())
    if content["digests"] != session.digests:
        changed.append("the training files are others, or were made again")
    if changed and not lenient:
        raise StartError(
            f"{path} was made with another config: {'; '.join(changed[:8])}. Resume with the old one, accept the "
            "change with --lenient, or start a new run from these weights with init_from"
        )
    for change in changed:
        LOG.warning("changed since the checkpoint: %s", change)


def _set_aside(output_dir: Path, found: checkpoint.Found) -> None:
    """Move checkpoints beyond `found` out of the way: training makes them again."""
    later = [item for item in checkpoint.found(output_dir) if item.order > found.order]
    if later:
        aside = checkpoint.folder(output_dir) / f"before-resume-from-{found.path.name.split('.')[0]}"
        aside.mkdir(exist_ok=True)
        for item in later:
            shutil.move(item.path, aside / item.path.name)
        LOG.info("moved %d later checkpoint(s) to %s", len(later), aside)
    if checkpoint.pointed(output_dir, "latest") != found.path:
        checkpoint.point(output_dir, "latest", found.path)


def _clear(output_dir: Path) -> None:
    """Delete what an earlier run left; checkpoints first, so that a half-cleared folder never looks resumable."""
    for item in checkpoint.found(output_dir):
        item.path.unlink()
    for pointer in ("latest", "best"):
        (checkpoint.folder(output_dir) / pointer).unlink(missing_ok=True)
    for path in output_dir.glob("summaries*.csv*"):
        path.unlink()


def _initialise(model: nn.Module, spec: str, session: Session) -> None:
    content = on_root(session.parallel, lambda: checkpoint.load(checkpoint.resolve(spec)))
    _transfer(model, content, spec)


def _transfer(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Take the weights that fit by name and shape, and say which; CheckpointError when none does."""
    matched = checkpoint.match(model.state_dict(), content["model"])
    checkpoint.load_into(model, content["model"], source=source, strict=False)
    LOG.info("weights from %s: %s", source, matched)


def new_state(session: Session, model: nn.Module, progress: Progress) -> TrainState:
    """The state at `progress`, with an optimizer that has not stepped yet."""
    stage = session.stages[progress.stage]
    select_trainable(model, stage)
    return TrainState(
        model, session.task.optimization(session.run, model, stage, session.pace(progress.stage)), progress
    )


def enter_next_stage(session: Session, state: TrainState) -> None:
    """Leave the stage that is over: other parameters train, by an optimizer of their own unless it is kept."""
    state.progress.begin_stage()
    number = state.progress.stage
    stage = session.stages[number]
    select_trainable(state.model, stage)
    if not stage.keep_optimizer:
        state.optimization = session.task.optimization(session.run, state.model, stage, session.pace(number))
    LOG.info("stage %s begins", stage.name)


def _reopen_if_longer(progress: Progress, run: Run) -> None:
    """A finished run goes on when the config now asks for more epochs or iterations."""
    more_epochs = run.epochs is not None and progress.epoch < run.epochs
    more_steps = run.iterations is not None and progress.step < run.iterations
    if progress.ended.endswith("are done") and (more_epochs or more_steps):
        progress.ended = ""
    if (
        run.epochs is not None
        and progress.epoch >= run.epochs
        and not progress.epoch_steps
        and not progress.ended
    ):
        progress.ended = f"{run.epochs} epochs are done"


def _synchronise(model: nn.Module, session: Session) -> None:
    """Everybody takes rank 0's weights, in case a rank built its model otherwise."""
    tensors = [tensor.data for tensor in (*model.parameters(), *model.buffers())]
    session.parallel.broadcast_(tensors)
