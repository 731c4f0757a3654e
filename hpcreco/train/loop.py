"""The training loop: steps make epochs, epochs make stages, stages make a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from hpcreco.data.plan import Step
from hpcreco.parallel.timeline import OFF, Timeline
from hpcreco.parallel.watchdog import Watchdog
from hpcreco.train import checkpoint, epoch, start
from hpcreco.train.progress import StepReport
from hpcreco.train.session import Session
from hpcreco.train.state import Clock, TrainState, select_trainable, set_modes
from hpcreco.train.step import Control, Stepper
from hpcreco.train.stop import EXIT_STOPPED, Stop
from hpcreco.train.summary import Rows
from hpcreco.train.sums import Sums
from hpcreco.train.writer import CheckpointWriter

LOG = logging.getLogger("hpcreco")


class Loop:
    """Trains from `state` to the run's end, or until somebody asks to stop."""

    def __init__(
        self,
        session: Session,
        state: TrainState,
        stop: Stop,
        watchdog: Watchdog,
        summaries: list[Rows],
        timeline: Timeline = OFF,
    ) -> None:
        self.session, self.state, self.stop, self.watchdog = session, state, stop, watchdog
        self.summaries, self.timeline = summaries, timeline
        self._last_save = time.monotonic()
        self._writer = CheckpointWriter(session.output_dir, session.run.keep_checkpoints, timeline)

    def run(self) -> int:
        """Returns 0 when training is done, 75 when it was asked to stop; either way everything is saved by then."""
        try:
            code = 0
            while not self.state.progress.ended and code == 0:
                code = EXIT_STOPPED if self._train_stage() else 0
            self._writer.finish()
            self.timeline.close()
        finally:
            self._writer.close()
        if code == EXIT_STOPPED:
            reason = self.stop.reason or "a request to another rank"
            LOG.info("stopped by %s after step %d; continue with --resume", reason, self.state.progress.step)
        return code

    def _train_stage(self) -> bool:
        """Steps until the stage or the run is over; True when stopped before."""
        session, progress = self.session, self.state.progress
        number = progress.stage
        stage = session.stages[number]
        select_trainable(self.state.model, stage)
        model, optimization = self.state.model, self.state.optimization
        total = self._epoch_length(number)
        with (
            StepReport(session.root, session.run.report) as report,
            session.feed(progress) as feed,
            Stepper(
                session.task, session.run, model, optimization, stage, number, session.parallel, self.timeline
            ) as stepper,
        ):
            shares = iter(feed)  # endless
            while True:
                self.timeline.next_step()
                before = time.monotonic()
                with self.timeline.span("wait for data"):
                    share, batches = next(shares)
                began = time.monotonic()
                self.state.clock.data += began - before
                taken = stepper.take(batches, progress.stage_step, self._flags())
                self.watchdog.beat(progress.step)
                planned = share.step
                assert planned is not None  # shares of a feed come from steps
                self._advance(planned, taken.sums, taken.gradient_norm)
                self._writer.check()
                seconds = time.monotonic() - began
                self.state.clock.compute += seconds
                self.stop.step_took(seconds)
                report.step(progress.epoch, progress.epoch_steps, total, progress.step, taken.sums.loss())
                if self._epoch_over(planned.last):
                    with self.timeline.span("end of epoch"):
                        self._finish_epoch()
                    set_modes(self.state.model)
                elif self._save_due(taken.control):
                    self._save()
                if progress.ended or progress.stage != number:
                    return False
                if taken.control.stop:
                    self._save_for_stop()
                    return True

    # ------------------------------------------------------------------------------------------ within an epoch

    def _flags(self) -> Control:
        cadence = self.session.run.save
        late = cadence.unit == "seconds" and time.monotonic() - self._last_save >= cadence.every
        return Control(stop=self.stop.requested(), save=late and self.session.root)

    def _advance(self, step: Step, sums: Sums, norm: float) -> None:
        progress = self.state.progress
        progress.sums.merge(sums)
        progress.gradient_norm += norm
        progress.epoch_steps += 1
        progress.step += 1
        progress.stage_step += 1
        progress.data_epoch = step.epoch + step.last
        progress.position = 0 if step.last else step.next_position

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

    def _epoch_length(self, stage: int) -> int:
        """Steps per row of the summary, where neither the stage nor the run ends before."""
        cadence = self.session.run.validate_every
        return int(cadence.every) if cadence.unit == "steps" else self.session.pace(stage).steps_per_epoch

    def _save_due(self, control: Control) -> bool:
        cadence = self.session.run.save
        if cadence.unit == "steps":
            return self.state.progress.step % int(cadence.every) == 0
        return control.save

    # ------------------------------------------------------------------------------------------ at an epoch's end

    def _finish_epoch(self) -> None:
        session, progress = self.session, self.state.progress
        ended = self._run_over()
        validation = None
        if self._validation_due(bool(ended)):
            validation = epoch.validate(session, self.state, lambda: self.watchdog.beat(progress.step))
        row = epoch.row(session, self.state, validation)
        self.state.optimization.schedule.after_epoch(row)
        for summary in self.summaries:
            summary.append(row)
        epoch.say(row)
        improved = epoch.judge(session, progress, row)
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
            start.enter_next_stage(session, self.state)
        due = {
            "epochs": progress.epoch % max(1, int(cadence.every)) == 0,
            "steps": progress.step % max(1, int(cadence.every)) == 0,
            "seconds": True,
        }[cadence.unit]
        if due or ended or stage_over or improved:
            self._save(improved)

    def _run_over(self) -> str:
        """Why the run ends with this epoch, or nothing."""
        run, progress = self.session.run, self.state.progress
        if run.epochs is not None and progress.epoch + 1 >= run.epochs:
            return f"{run.epochs} epochs are done"
        if run.iterations is not None and progress.step >= run.iterations:
            return f"{run.iterations} iterations are done"
        return ""

    def _stage_over(self, row: Mapping[str, Any]) -> bool:
        stage, progress = self.session.stages[self.state.progress.stage], self.state.progress
        by_epochs = stage.epochs is not None and progress.stage_epoch >= stage.epochs
        by_steps = stage.steps is not None and progress.stage_step >= stage.steps
        return by_epochs or by_steps or (stage.until is not None and stage.until(row))

    def _validation_due(self, last: bool) -> bool:
        run = self.session.run
        if self.session.validation is None:
            return False
        if run.validate_every.unit != "epochs":
            return True
        return last or (self.state.progress.epoch + 1) % max(1, int(run.validate_every.every)) == 0

    # ------------------------------------------------------------------------------------------ saving

    def _save(self, improved: bool = False) -> None:
        """Have rank 0 save: an epoch's checkpoint when no step of the next one is taken, else one named by its step."""
        session, progress = self.session, self.state.progress
        self._last_save = time.monotonic()
        if not session.root:
            return
        began = time.monotonic()
        within = progress.epoch_steps > 0
        number = progress.epoch if within else progress.epoch - 1
        name = checkpoint.name(number, progress.step if within else None)
        with self.timeline.span("checkpoint"):
            payload = self.state.payload(session.run, session.stages, session.digests)
            self._writer.save(name, payload, improved)
        self.state.clock.save += time.monotonic() - began

    def _save_for_stop(self) -> None:
        if self.state.progress.epoch_steps:
            self._save()
        else:
            self._save_missing_epoch()

    def _save_missing_epoch(self) -> None:
        """Save the epoch that has just ended unless its checkpoint is there already."""
        self._writer.finish()
        path = checkpoint.folder(self.session.output_dir) / checkpoint.name(self.state.progress.epoch - 1)
        if self.session.root and not path.is_file():
            self._save()
