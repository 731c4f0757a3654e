"""One global step: every rank's micro-batches become one gradient and one update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from hpcreco.config import Run
from hpcreco.data.batch import Batch
from hpcreco.parallel import Parallel
from hpcreco.parallel.gradients import GradientSum
from hpcreco.parallel.timeline import BACKWARD, OFF, Timeline
from hpcreco.train.sums import Sums, reduce_together
from hpcreco.train.task import Context, Optimization, Outcome, Stage, Task


class TrainingError(RuntimeError):
    """Training cannot go on."""

    exit_code = 1
    everywhere = False
    quiet = False


@dataclass(frozen=True)
class Control:
    """What ranks must agree on before they go on: true for all once it is true for one.

    A loss that is not finite needs no flag: it travels in the sums. Nor does a stage's end: it follows from them.
    """

    stop: bool = False
    save: bool = False


@dataclass(frozen=True)
class Taken:
    """What a step was: global sums, the control flags all ranks agreed on, the gradient's norm."""

    sums: Sums
    control: Control
    gradient_norm: float


def seed_step(seed: int, stage: int, step: int, rank: int) -> torch.Generator:
    """Re-seed torch and numpy from (seed, stage, step, rank); returns a generator of its own for the task.

    Nothing random has to be stored in checkpoints, so any number of ranks may resume.
    """
    words = np.random.SeedSequence([seed, stage, step, rank]).generate_state(3, np.uint64)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]) & 0xFFFFFFFF)  # noqa: NPY002  (for libraries that use the global generator)
    return torch.Generator().manual_seed(int(words[2] >> np.uint64(1)))


def cast(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """`batch` on `device`, its floating-point tensors as `dtype`."""
    moved = batch.to(device, non_blocking=True)
    tensors = {k: t.to(dtype) if t.is_floating_point() else t for k, t in moved.tensors.items()}
    return Batch(tensors, moved.offsets, moved.n_events, moved.refs, moved.costs)


class Stepper:
    """Takes global steps within one stage; used as a context, for the model's gradients are listened to meanwhile."""

    def __init__(
        self,
        task: Task,
        run: Run,
        model: nn.Module,
        optimization: Optimization,
        stage: Stage,
        number: int,
        parallel: Parallel,
        timeline: Timeline = OFF,
    ) -> None:
        self._task, self._run, self._model, self._optimization = task, run, model, optimization
        self._stage, self._number, self._parallel = stage, number, parallel
        self._dtype = torch.float64 if run.precision == "float64" else torch.float32
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._timeline = timeline
        self._gradients = GradientSum(
            model.named_parameters(),
            parallel,
            int(run.parallel.bucket_mb * 2**20),
            overlap=run.parallel.overlap,
            compression=run.parallel.compression,
            timeline=timeline,
        )

    def __enter__(self) -> Stepper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gradients.close()

    def take(self, batches: Sequence[Batch], step: int, flags: Control) -> Taken:
        """Forward, backward, all-reduce and update for this rank's `batches` of the global step.

        Raises `TrainingError` on all ranks alike when the loss or the gradient is not finite.
        """
        self._optimization.schedule.before_step(step)
        self._optimization.optimizer.zero_grad(set_to_none=True)
        generator = seed_step(self._run.seed, self._number, step, self._parallel.rank)
        context = Context(self._stage.name, step, True, generator)
        sums, control = self._differentiate(batches, context, flags)
        with self._timeline.span("wait for sums"):
            self._gradients.finish()
            if not self._run.parallel.sync_batch_norm:
                average_statistics(
                    self._model, self._parallel, weight=float(any(b.n_events for b in batches))
                )
        with self._timeline.span("update"):
            norm = float(nn.utils.clip_grad_norm_(self._trainable, self._run.grad_clip or float("inf")))
            loss = sums.loss()
            if not (np.isfinite(loss) and np.isfinite(norm)):
                self._refuse(step, loss, norm)
            self._optimization.optimizer.step()
        return Taken(sums, control, norm)

    def _refuse(self, step: int, loss: float, norm: float) -> None:
        error = TrainingError(
            f"stage {self._stage.name}, step {step}: the loss is {loss} and the gradient's norm {norm}; the last "
            "checkpoint is untouched. Lower the learning rate, set train.grad_clip, or look for bad input with "
            "`hpcreco validate`"
        )
        error.everywhere, error.quiet = True, self._parallel.rank != 0  # every rank sees the same numbers
        raise error

    def _forward(self, batch: Batch, context: Context, sums: Sums) -> Outcome:
        batch = cast(batch, self._parallel.device, self._dtype)
        with (
            self._timeline.span("forward"),
            torch.autocast(self._parallel.device.type, torch.bfloat16, enabled=self._run.amp),
        ):
            outcome = self._task.step(self._model, batch, context)
        if self._stage.terms is not None:
            outcome = Outcome(
                {k: v for k, v in outcome.terms.items() if k in self._stage.terms}, outcome.outputs
            )
        if not outcome.terms:
            raise TrainingError(
                f"stage {self._stage.name}: no loss term to train on; the files hold no truth labels"
            )
        with self._timeline.span("metrics"), torch.no_grad():
            sums.add_outcome(outcome, self._task.metrics(outcome.outputs, batch))
        sums.add({"events": batch.n_events, "cost": batch.cost})
        return outcome

    def _differentiate(
        self, batches: Sequence[Batch], context: Context, flags: Control
    ) -> tuple[Sums, Control]:
        """Forward and backward of all micro-batches; the last backward sends the gradients of all as they come.

        Global weights are known once every rank has seen its last micro-batch, so the last loss is scaled before its
        backward; what earlier ones gave is kept term by term until then.
        """
        sums = Sums()
        *earlier, last = batches
        kept: dict[str, list[Tensor | None]] = {}
        for batch in earlier:
            self._accumulate(self._forward(batch, context, sums), kept)
        outcome = self._forward(last, context, sums)
        control = self._agree(sums, flags)
        for name, gradients in kept.items():
            scale = _scale(sums, name)
            for parameter, gradient in zip(self._trainable, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = _plus(parameter.grad, gradient * scale)
        scales = {name: _scale(sums, name) for name, term in outcome.terms.items() if term.sum.requires_grad}
        losses = [outcome.terms[name].sum * scale for name, scale in scales.items() if scale]
        if losses:
            self._gradients.begin()
            with self._timeline.span(BACKWARD):
                sum(losses[1:], losses[0]).backward()
        return sums, control

    def _accumulate(self, outcome: Outcome, kept: dict[str, list[Tensor | None]]) -> None:
        """Add the gradients of each term, which is not scaled yet, to those that are `kept` of it."""
        terms = [(name, term) for name, term in outcome.terms.items() if term.sum.requires_grad]
        for number, (name, term) in enumerate(terms):
            keep = number + 1 < len(terms)
            with self._timeline.span(BACKWARD):
                new = torch.autograd.grad(term.sum, self._trainable, retain_graph=keep, allow_unused=True)
            old = kept.get(name, [None] * len(self._trainable))
            kept[name] = [_plus(a, b) for a, b in zip(old, new, strict=True)]

    def _agree(self, sums: Sums, flags: Control) -> Control:
        with self._timeline.span("sum terms and metrics"):
            agreed = reduce_together(sums, torch.tensor(astuple(flags), dtype=torch.int64), self._parallel)
        return Control(*(count > 0 for count in agreed.tolist()))


def _scale(sums: Sums, term: str) -> float:
    weight = float(sums.values[f"term/{term}/weight"])
    return sums.coefficients[term] / weight if weight else 0.0


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def average_statistics(model: nn.Module, parallel: Parallel, weight: float) -> None:
    """Average the running statistics of normalisation layers over the ranks that had events (`weight` 1, else 0).

    Every rank then holds the same model, so any of them may write the checkpoint.
    """
    if parallel.size == 1:
        return
    buffers: list[Tensor] = []
    for module in model.modules():
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if module.training and isinstance(mean, Tensor) and isinstance(variance, Tensor):
            buffers += [mean, variance]
    if not buffers:
        return
    flat = torch.cat(
        [b.reshape(-1).double() * weight for b in buffers] + [buffers[0].new_full((1,), weight).double()]
    )
    parallel.sum_([flat])
    ranks = float(flat[-1])
    if ranks == 0:
        return
    at = 0
    for buffer in buffers:
        buffer.copy_((flat[at : at + buffer.numel()] / ranks).reshape(buffer.shape))
        at += buffer.numel()
