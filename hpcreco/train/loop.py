"""The training loop: steps make epochs, epochs make stages, stages make a run."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Mapping
from functools import partial

from hpcreco import shards
from hpcreco.config import Store
from hpcreco.parallel.gradients import Control
from hpcreco.parallel.watchdog import Watchdog
from hpcreco.train import checkpoint, evaluation
from hpcreco.train.predictions import Made, YinfSink
from hpcreco.train.progress import StepReport
from hpcreco.train.session import Session
from hpcreco.train.state import Clock, TrainState, select_trainable, set_modes
from hpcreco.train.step import Stepper
from hpcreco.train.stop import EXIT_STOPPED, Stop
from hpcreco.train.summary import Summary
from hpcreco.train.sums import Sums

LOG = logging.getLogger("hpcreco")


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
        "memory_mb",
    )


class Loop:
    """Trains from `state` to the run's end, or until somebody asks to stop."""

    def __init__(
        self, session: Session, state: TrainState, stop: Stop, watchdog: Watchdog, summaries: list[Summary]
    ) -> None:
        self.session, self.state, self.stop, self.watchdog = session, state, stop, watchdog
        self.summaries = summaries
        self._last_save = time.monotonic()

    def run(self) -> int:
        """Returns 0 when training is done, 75 when it was asked to stop and has saved."""
        while not self.state.progress.ended:
            stopped = self._train_stage()
            if stopped:
                return EXIT_STOPPED
        return 0

    def _train_stage(self) -> bool:
        """Steps until the stage or the run is over; True when stopped before."""
        session, progress = self.session, self.state.progress
        number = progress.stage
        stage = session.stages[number]
        select_trainable(self.state.model, stage)
        stepper = Stepper(
            session.task,
            session.run,
            self.state.model,
            self.state.optimization,
            stage,
            number,
            session.parallel,
        )
        total = session.pace(number).steps_per_epoch
        with StepReport(session.root, session.run.report) as report, session.feed(progress) as feed:
            before = time.monotonic()
            for share, batches in feed:
                began = time.monotonic()
                self.state.clock.data += began - before
                taken = stepper.take(batches, progress.stage_step, self._flags())
                self.watchdog.beat(progress.step)
                self._advance(share.step, taken.sums, taken.gradient_norm)
                before = time.monotonic()
                self.state.clock.compute += before - began
                self.stop.step_took(before - began)
                report.step(progress.epoch, progress.epoch_steps, total, progress.step, taken.sums.loss())
                if self._epoch_over(share.step.last):
                    self._finish_epoch()
                    set_modes(self.state.model)
                elif self._save_due(taken.control):
                    self._save()
                if progress.ended or progress.stage != number:
                    return False
                if taken.control.stop:
                    self._save_for_stop()
                    return True
                before = time.monotonic()
        raise RuntimeError("the feed of steps ended by itself")  # it is endless by construction

    # ------------------------------------------------------------------------------------------ within an epoch

    def _flags(self) -> Control:
        cadence = self.session.run.save
        late = cadence.unit == "seconds" and time.monotonic() - self._last_save >= cadence.every
        return Control(stop=self.stop.requested(), save=late and self.session.root)

    def _advance(self, step: object, sums: Sums, norm: float) -> None:
        progress = self.state.progress
        progress.sums.merge(sums)
        progress.gradient_norm += norm
        progress.epoch_steps += 1
        progress.step += 1
        progress.stage_step += 1
        last = step.last  # type: ignore[attr-defined]
        progress.data_epoch = step.epoch + last  # type: ignore[attr-defined]
        progress.position = 0 if last else step.next_position  # type: ignore[attr-defined]

    def _epoch_over(self, data_epoch_over: bool) -> bool:
        run, progress = self.session.run, self.state.progress
        if run.iterations is not None and progress.step >= run.iterations:
            return True
        stage = self.session.stages[progress.stage]
        if stage.steps is not None and progress.stage_step >= stage.steps:
            return True
        if run.validate_every.unit == "steps":
            return progress.step % int(run.validate_every.every) == 0
        return data_epoch_over

    def _save_due(self, control: Control) -> bool:
        cadence = self.session.run.save
        if cadence.unit == "steps":
            return self.state.progress.step % int(cadence.every) == 0
        return control.save

    # ------------------------------------------------------------------------------------------ at an epoch's end

    def _finish_epoch(self) -> None:
        session, progress = self.session, self.state.progress
        ended = self._run_over()
        row = self._row(progress.sums, validate=self._validation_due(bool(ended)))
        self.state.optimization.schedule.after_epoch(row)
        for summary in self.summaries:
            summary.append(row)
        self._say(row)
        improved = self._judge(row)
        patience = session.run.early_stop.patience if session.run.early_stop else None
        if not ended and patience is not None and progress.epochs_since_best >= patience:
            ended = f"no better {session.task.monitor(session.run)[0]} for {patience} validations"
        progress.epoch += 1
        progress.stage_epoch += 1
        progress.begin_epoch()
        self.state.clock = Clock()
        stage_over = not ended and self._stage_over(row)
        if stage_over and progress.stage + 1 == len(session.stages):
            ended = "the last stage is over"
        progress.ended = ended
        cadence = session.run.save
        if stage_over and not ended:
            self._enter_next_stage()
        if (
            ended
            or stage_over
            or improved
            or cadence.unit != "epochs"
            or progress.epoch % max(1, int(cadence.every)) == 0
        ):
            self._save(improved)

    def _run_over(self) -> str:
        """Why the run ends with this epoch, or nothing."""
        run, progress = self.session.run, self.state.progress
        if run.epochs is not None and progress.epoch + 1 >= run.epochs:
            return f"{run.epochs} epochs are done"
        if run.iterations is not None and progress.step >= run.iterations:
            return f"{run.iterations} iterations are done"
        return ""

    def _stage_over(self, row: Mapping[str, float]) -> bool:
        stage, progress = self.session.stages[self.state.progress.stage], self.state.progress
        by_epochs = stage.epochs is not None and progress.stage_epoch >= stage.epochs
        by_steps = stage.steps is not None and progress.stage_step >= stage.steps
        return by_epochs or by_steps or (stage.until is not None and stage.until(row))

    def _enter_next_stage(self) -> None:
        session, progress = self.session, self.state.progress
        progress.begin_stage()
        stage = session.stages[progress.stage]
        select_trainable(self.state.model, stage)
        if not stage.keep_optimizer:
            pace = session.pace(progress.stage)
            self.state.optimization = session.task.optimization(session.run, self.state.model, stage, pace)
        LOG.info("stage %s begins", stage.name)

    def _validation_due(self, last: bool) -> bool:
        run = self.session.run
        if self.session.validation is None:
            return False
        if run.validate_every.unit != "epochs":
            return True
        return last or (self.state.progress.epoch + 1) % max(1, int(run.validate_every.every)) == 0

    def _validate(self) -> tuple[Sums, float]:
        session, progress, part = self.session, self.state.progress, self.session.validation
        assert part is not None
        began = time.monotonic()
        store = session.run.store
        files = evaluation.my_files(part, session.parallel.rank, session.parallel.size)
        work = evaluation.shares(part, files, session.micro_budget())
        measure = partial(
            evaluation.evaluate,
            session.task,
            session.run,
            self.state.model,
            part,
            work,
            session.parallel.device,
        )
        if store is not None and progress.epoch % store.every_epochs == 0:
            with self._sink(part.index, store) as sink:
                own = measure(sink.take)
        else:
            own = measure()
        self.watchdog.beat(progress.step)
        return own.total(session.parallel), time.monotonic() - began

    def _sink(self, index: shards.Index, store: Store) -> YinfSink:
        """Where validation stores predictions; the digest is that of the weights, which have no checkpoint yet."""
        session, progress = self.session, self.state.progress
        chosen = set(range(0, len(index.paths), store.every_samples))
        digest = checkpoint.digest(self.state.model.state_dict())
        made = Made(
            progress.epoch,
            progress.step,
            "during training",
            digest,
            session.parallel.name,
            session.parallel.size,
        )
        folder = session.output_dir / store.outdir
        return YinfSink(session.task, session.run, self.state.model, index, chosen, folder, made)

    def _row(self, train: Sums, validate: bool) -> dict[str, float | int | str]:
        session, progress, clock = self.session, self.state.progress, self.state.clock
        names = session.task.column_names(session.run)
        seconds = clock.data + clock.compute
        train_columns = session.task.columns(train.metrics())
        valid, valid_time = self._validate() if validate else (Sums(), 0.0)
        has_truth = bool(valid.coefficients)
        valid_columns = (
            session.task.columns(valid.metrics()) if has_truth else dict.fromkeys(names, float("nan"))
        )
        return {
            "epoch": progress.epoch,
            "train_loss": train.loss(),
            **{f"train_{name}": train_columns[name] for name in names},
            "train_time": seconds,
            "valid_loss": valid.loss() if validate else float("nan"),
            **{f"valid_{name}": valid_columns[name] for name in names},
            "valid_time": valid_time,
            "lr": float(self.state.optimization.optimizer.param_groups[0]["lr"]),
            "gradient_norm": progress.gradient_norm / max(1, progress.epoch_steps),
            "events": int(train.values["events"]),
            "steps": progress.epoch_steps,
            "stage": session.stages[progress.stage].name,
            "train_rate": float(train.values["cost"]) / max(seconds, 1e-9),
            "data_time": clock.data,
            "compute_time": clock.compute,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _say(self, row: Mapping[str, float | int | str]) -> None:
        shown = [
            f"{name} {row[name]:.4g}"
            for name in row
            if name.startswith(("train_", "valid_"))
            and name not in ("train_rate", "train_time", "valid_time")
        ]
        LOG.info(
            "epoch %s done in %.1f s (data %.1f s)  %s  lr %.3g  %.3g cost/s",
            row["epoch"], row["train_time"], row["data_time"], "  ".join(shown), row["lr"], row["train_rate"],
        )  # fmt: skip

    def _judge(self, row: Mapping[str, float | int | str]) -> bool:
        """Is this the best validated epoch so far?"""
        session, progress = self.session, self.state.progress
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

    # ------------------------------------------------------------------------------------------ saving

    def _save(self, improved: bool = False) -> None:
        """Save on rank 0: an epoch's checkpoint when no step of the next one is taken, else one named by its step."""
        session, progress = self.session, self.state.progress
        self._last_save = time.monotonic()
        if not session.root:
            return
        within = progress.epoch_steps > 0
        epoch = progress.epoch if within else progress.epoch - 1
        path = checkpoint.folder(session.output_dir) / checkpoint.name(
            epoch, progress.step if within else None
        )
        checkpoint.save(path, self.state.payload(session.run, session.stages, session.digests))
        checkpoint.point(session.output_dir, "latest", path)
        if improved:
            checkpoint.point(session.output_dir, "best", path)
        checkpoint.prune(session.output_dir, session.run.keep_checkpoints)

    def _save_for_stop(self) -> None:
        if self.state.progress.epoch_steps:
            self._save()
        else:
            self._save_missing_epoch()
        reason = self.stop.reason or "another rank was asked to stop"
        LOG.info("stopped by %s after step %d; continue with --resume", reason, self.state.progress.step)

    def _save_missing_epoch(self) -> None:
        """Save the epoch that has just ended unless its checkpoint is there already."""
        path = checkpoint.folder(self.session.output_dir) / checkpoint.name(self.state.progress.epoch - 1)
        if self.session.root and not path.is_file():
            self._save()
