"""A few real steps of the real model on real batches, timed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpcreco.data.batch import Ref
from hpcreco.data.plan import references
from hpcreco.data.sharing import Share
from hpcreco.parallel import Parallel
from hpcreco.parallel.gradients import buckets, sent_bytes
from hpcreco.parallel.serial import Serial
from hpcreco.planning import measurement as kept
from hpcreco.planning.measurement import Line, Measurement
from hpcreco.planning.memory import Peak, available
from hpcreco.planning.network import ASSUMED, Network, fit
from hpcreco.train.evaluation import evaluate
from hpcreco.train.session import Part, Session
from hpcreco.train.state import TrainState, set_modes
from hpcreco.train.step import Control, Stepper
from hpcreco.train.writer import snapshot

#: costs to measure at: between the smallest batch and the largest that training would meet
POINTS = 5
#: sizes of all-reduces to fit latency and bandwidth to, bytes
MESSAGES = (8, 1 << 14, 1 << 18, 1 << 22)
_ROUNDS = 3
_ENOUGH = 3.0  # seconds after which a call is not repeated


@dataclass(frozen=True)
class _Candidate:
    """A micro-batch to take a step with."""

    refs: tuple[Ref, ...]
    costs: tuple[float, ...]

    @property
    def cost(self) -> float:
        return sum(self.costs)


@dataclass(frozen=True)
class _Step:
    """A step with a batch of some cost: seconds of reading it and of the step, bytes of the batch and of the peak."""

    cost: float
    reading: float
    size: float
    seconds: float
    memory: float


def measure(
    session: Session,
    state: TrainState,
    config: str,
    seconds: float,
    largest: float,
    say: Callable[[str], None] = lambda text: None,
) -> Measurement:
    """Measure for about `seconds` with batches of up to the cost `largest`; on several ranks the network as well.

    Every rank computes at once, as in training, so what they share (memory's bus) is in the numbers. The weights of
    `state` are worn out afterwards. Collective when there are several ranks.
    """
    part = session.training
    assert part is not None
    chosen = candidates(part, largest)
    device = session.parallel.device
    with Stepper(
        session.task,
        session.run,
        state.model,
        state.optimization,
        session.stages[0],
        0,
        Serial(device),
    ) as stepper:
        stepper.take(
            [part.dataset.batch(chosen[0].refs, chosen[0].costs)], 0, Control()
        )  # compiles, fills caches
        first = uptime()
        steps = _steps(stepper, part, chosen, seconds, device, say)
    costs = [step.cost for step in steps]
    half = chosen[len(steps) // 2]
    forward = fastest(lambda: _forward(session, state, part, half), device)
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    sums = session.run.parallel
    update = fastest(state.optimization.optimizer.step, device)
    whole = kept.line(costs, [max(1e-9, step.seconds - update) for step in steps])
    share = min(1.0, forward / whole.at(half.cost))
    return Measurement(
        config=config,
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
        start=first,
        parameters=sum(p.numel() for p in parameters),
        gradients=bucket_bytes(parameters, sums.bucket_mb * 2**20, sums.compression),
        points=tuple((step.cost, step.seconds, step.memory) for step in steps),
        network=measure_network(session.parallel) if session.parallel.size > 1 else ASSUMED,
    )


def _steps(
    stepper: Stepper,
    part: Part,
    chosen: Sequence[_Candidate],
    seconds: float,
    device: torch.device,
    say: Callable[[str], None],
) -> list[_Step]:
    """Steps with the candidates, of rising cost, until `seconds` or the memory would be exceeded; two at least."""
    steps: list[_Step] = []
    began = time.monotonic()
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
    return min(_ROUNDS * once, _ENOUGH + once) > left or last.memory * (grows - 1) > 0.7 * available(device)


def candidates(part: Part, largest: float) -> list[_Candidate]:
    """Micro-batches of rising cost up to `largest`, made of events as they come, like those of training."""
    costs, first = part.costs, np.asarray(part.index.first, np.int64)
    some = np.flatnonzero(costs > 0)
    some = some if len(some) else np.arange(len(costs))
    order = np.random.default_rng(0).permutation(some)
    low = max(float(costs[order].min()), 1e-9)
    out: dict[tuple[int, ...], _Candidate] = {}
    for wanted in np.geomspace(low, max(largest, low), POINTS):
        events = _gather(costs, order, float(wanted))
        out[events] = _Candidate(references(first, np.array(events)), tuple(costs[list(events)].tolist()))
    return sorted(out.values(), key=lambda one: one.cost)


def _gather(costs: np.ndarray, order: np.ndarray, wanted: float) -> tuple[int, ...]:
    """Different events of about the cost `wanted` in all: in their order, those that still fit."""
    left, chosen = wanted * (1 + 1e-9), []
    for event in order.tolist():
        if costs[event] <= left:
            chosen.append(event)
            left -= float(costs[event])
    return tuple(sorted(chosen or [int(order[np.argmin(costs[order])])]))


def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few calls: what else runs on the machine only adds."""
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
        if sum(taken) > _ENOUGH:
            break
    return min(taken)


def _forward(session: Session, state: TrainState, part: Part, candidate: _Candidate) -> None:
    work = [Share(((candidate.refs, candidate.costs),), 0, 1.0)]
    evaluate(session.task, session.run, state.model, part, work, session.parallel.device)
    set_modes(state.model)


def _save(session: Session, state: TrainState) -> float:
    """Seconds that training stands still for a checkpoint: while its state is copied, for it is written beside."""
    began = time.monotonic()
    snapshot(state.payload(session.run, session.stages, session.digests))
    return time.monotonic() - began


def bucket_bytes(
    parameters: Sequence[torch.nn.Parameter], size: float, compression: str = "none"
) -> tuple[float, ...]:
    """Bytes of the buckets that gradients are sent in, in the order of sending; compressed ones are half as large."""
    share = 1.0 if compression == "none" else 0.5
    return tuple(share * sum(map(sent_bytes, bucket)) for bucket in buckets(parameters, size))


def measure_network(parallel: Parallel) -> Network:
    """What this launch's ranks take for all-reduces of a few sizes; the slowest rank counts.

    gloo and NCCL add in a ring, MPI under Horovod halves.
    """
    seconds = []
    for size in MESSAGES:
        tensor = torch.zeros(size // 4, device=parallel.device)
        parallel.sum_([tensor])  # the first of a size makes connections and buffers
        taken = []
        for _ in range(10):
            parallel.barrier()
            began = time.perf_counter()
            parallel.sum_([tensor])
            taken.append(time.perf_counter() - began)
        seconds.append(float(np.median(taken)))
    everyone = parallel.broadcast_object(parallel.gather_object(seconds))
    return fit(
        MESSAGES,
        np.max(everyone, axis=0).tolist(),
        parallel.size,
        "ring" if parallel.name == "ddp" else "halving",
    )


def uptime() -> float:
    """Seconds since this process was started."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.process_time()
