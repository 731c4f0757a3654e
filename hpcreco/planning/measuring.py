"""A few real steps of the real model on real batches, timed, in every stage."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from hpcreco.data.sharing import Share
from hpcreco.parallel.serial import Serial
from hpcreco.planning import measurement as kept
from hpcreco.planning.candidates import Candidate, candidates
from hpcreco.planning.measurement import Line, Measurement
from hpcreco.planning.memory import Peak, available
from hpcreco.planning.network import ASSUMED
from hpcreco.planning.prediction import largest_alone
from hpcreco.planning.sending import bucket_bytes, measure_network, packing
from hpcreco.planning.timing import ENOUGH, ROUNDS, fastest, uptime
from hpcreco.train.evaluation import evaluate
from hpcreco.train.session import Part, Session
from hpcreco.train.start import enter_next_stage
from hpcreco.train.state import TrainState, set_modes
from hpcreco.train.step import Control, Stepper
from hpcreco.train.writer import snapshot

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Step:
    """A step with a batch of some cost: seconds of reading it and of the step, bytes of the batch and of the peak."""

    cost: float
    reading: float
    size: float
    seconds: float
    memory: float


def measure(
    session: Session, state: TrainState, config: str, seconds: float, say: Say = lambda text: None
) -> tuple[Measurement, ...]:
    """Measure every stage, `state` being at the first, for about `seconds` in all; on several ranks the network too.

    Every rank computes at once, as in training, so what they share (memory's bus) is in the numbers. The weights of
    `state` are worn out afterwards, and it is in the last stage. Collective when there are several ranks.
    """
    ranks, found = session.parallel, []
    network = measure_network(ranks, session.run.parallel) if ranks.size > 1 else ASSUMED
    _compile(session, state)
    first, began = uptime(), time.monotonic()
    for number, stage in enumerate(session.stages):
        if number:
            enter_next_stage(session, state)
        if len(session.stages) > 1:
            say(f"stage {stage.name}:")
        left = seconds - (time.monotonic() - began)
        found.append(_stage(session, state, left / (len(session.stages) - number), say))
    return tuple(
        replace(one, config=config, network=network, start=0.0 if number else first)
        for number, one in enumerate(found)
    )


def _stage(session: Session, state: TrainState, seconds: float, say: Say) -> Measurement:
    """The stage that `state` is in; what all stages share is not filled in."""
    part, device, number = session.training, session.parallel.device, state.progress.stage
    assert part is not None
    chosen = _candidates(session, number)
    steps = _steps(session, state, chosen, seconds, say)
    costs = [step.cost for step in steps]
    half = chosen[len(steps) // 2]
    forward = fastest(lambda: _forward(session, state, part, half), device)
    trainable = [p for p in state.model.parameters() if p.requires_grad]
    update = fastest(state.optimization.optimizer.step, device)
    whole = kept.line(costs, [max(1e-9, step.seconds - update) for step in steps])
    share = min(1.0, forward / whole.at(half.cost))
    return Measurement(
        stage=session.stages[number].name,
        config="",
        machine=platform.node(),
        device=device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=torch.get_num_threads(),
        forward_backward=whole,
        forward=Line(whole.constant * share, whole.slope * share),
        reading=kept.line(costs, [step.reading for step in steps]),
        update=update,
        memory=kept.line(costs, [step.memory for step in steps]),
        data=kept.line(costs, [step.size for step in steps]),
        save=_save(session, state),
        start=0.0,
        parameters=sum(p.numel() for p in trainable),
        gradients=bucket_bytes(trainable, session.run.parallel),
        packing=packing(state.model, session.run.parallel, device),
        points=tuple((step.cost, step.seconds, step.memory) for step in steps),
        network=ASSUMED,
    )


def _candidates(session: Session, number: int) -> list[Candidate]:
    """Micro-batches up to the largest that one rank meets in the stage."""
    assert session.training is not None
    return candidates(session.training, largest_alone(session.planner(number), session.micro_budget()))


def _stepper(session: Session, state: TrainState) -> Stepper:
    """Takes steps of the stage that `state` is in, on this rank alone."""
    number, alone = state.progress.stage, Serial(session.parallel.device)
    stage = session.stages[number]
    return Stepper(session.task, session.run, state.model, state.optimization, stage, number, alone)


def _compile(session: Session, state: TrainState) -> None:
    """A step that nobody times: the first one compiles kernels and fills caches."""
    part, smallest = session.training, _candidates(session, 0)[0]
    assert part is not None
    with _stepper(session, state) as stepper:
        stepper.take([part.dataset.batch(smallest.refs, smallest.costs)], 0, Control())


def _steps(
    session: Session, state: TrainState, chosen: Sequence[Candidate], seconds: float, say: Say
) -> list[_Step]:
    """Steps with the candidates, of rising cost, until `seconds` or the memory would be exceeded; two at least."""
    part, device = session.training, session.parallel.device
    assert part is not None
    steps: list[_Step] = []
    began = time.monotonic()
    with _stepper(session, state) as stepper:
        for candidate in chosen:
            before = time.monotonic()
            if len(steps) >= 2 and _too_much(steps[-1], candidate.cost, seconds - (before - began), device):
                say(f"cost {candidate.cost:.0f} is not tried: it would take too long or too much memory")
                break
            batch = part.dataset.batch(candidate.refs, candidate.costs)
            reading = time.monotonic() - before
            size = float(sum(t.nbytes for t in batch.tensors.values()))
            with Peak(device) as peak:
                taken = fastest(lambda batch=batch: stepper.take([batch], 0, Control()), device)  # type: ignore[misc]
            steps.append(_Step(candidate.cost, reading, size, taken, peak.bytes))
            say(f"{len(candidate.refs)} event(s) of cost {candidate.cost:.0f}: {taken:.3f} s")
    return steps


def _too_much(last: _Step, cost: float, left: float, device: torch.device) -> bool:
    """Whether a batch of `cost` would last longer than `left` seconds, or need memory that is not there."""
    grows = cost / last.cost
    once = last.seconds * grows
    return min(ROUNDS * once, ENOUGH + once) > left or last.memory * (grows - 1) > 0.7 * available(device)


def _forward(session: Session, state: TrainState, part: Part, candidate: Candidate) -> None:
    work = [Share(((candidate.refs, candidate.costs),), 0, 1.0)]
    evaluate(session.task, session.run, state.model, part, work, session.parallel.device)
    set_modes(state.model)


def _save(session: Session, state: TrainState) -> float:
    """Seconds that training stands still for a checkpoint: while its state is copied, for it is written beside."""
    began = time.monotonic()
    snapshot(state.payload(session.run, session.stages, session.digests))
    return time.monotonic() - began
