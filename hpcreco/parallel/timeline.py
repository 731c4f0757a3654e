"""What each rank does when, for a few steps, as a trace that chrome://tracing and ui.perfetto.dev open.

Times are those of the host: on a GPU, kernels may still run when the call that started them is over.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from hpcreco import shards
from hpcreco.parallel import Parallel, Pending

#: steps that are recorded, counted from the start of the training: the first ones compile and fill caches
FIRST, LAST = 3, 8
SUM, BACKWARD = "all-reduce", "backward"

_POLL_SECONDS = 0.0002
_STEPS, _WRITES, _SUMS = 0, 1, 10  # a rank's tracks; every bucket has its own behind the last
_NOTHING: AbstractContextManager[None] = nullcontext()


class Sum(Protocol):
    """The sum of a bucket over ranks."""

    number: int
    pending: Pending


class Timeline:
    """Records nothing: what training talks to when nobody wants a timeline."""

    def next_step(self) -> None:
        """A step begins, with the wait for its data; all ranks call this."""

    def span(self, name: str) -> AbstractContextManager[None]:
        """The block is an activity of this thread."""
        return _NOTHING

    def sum(self, begun: Sum) -> None:
        """A sum has begun; it ends by itself."""

    def close(self) -> None:
        """Training has ended; all ranks call this."""


OFF = Timeline()


class Recorder(Timeline):
    """Records steps `FIRST` to `LAST` of every rank; rank 0 then writes them to `path` and says how much of the sums
    was hidden behind backward. Later steps are as fast as without.
    """

    def __init__(self, path: Path, parallel: Parallel, say: Callable[[str], None]) -> None:
        self._path, self._parallel, self._say = path, parallel, say
        self._step, self._recording, self._written = -1, False, False
        self._origin = 0.0
        self._events: list[dict[str, Any]] = []
        self._watch = _Watch()

    def next_step(self) -> None:
        self._step += 1
        if self._step == FIRST:
            self._parallel.barrier()  # the clocks of several nodes agree about when they left it
            self._origin, self._recording = time.perf_counter(), True
            self._watch.start()
        elif self._step == LAST + 1:
            self.close()

    def span(self, name: str) -> AbstractContextManager[None]:
        return self._spanned(name) if self._recording else _NOTHING

    def sum(self, begun: Sum) -> None:
        if self._recording:
            began, step = time.perf_counter(), self._step

            def note(ended: float) -> None:
                self._note(SUM, began, ended, _SUMS + begun.number, step, bucket=begun.number)

            begun.pending = self._watch.over(begun.pending, note)

    def close(self) -> None:
        if self._written:
            return
        self._written, self._recording = True, False
        self._watch.stop()
        everyone = self._parallel.gather_object(list(self._events))
        if everyone is not None:
            events = [event for events in everyone for event in events]
            write(self._path, events)
            self._say(f"timeline: {self._path}, {hidden(events)}")

    @contextmanager
    def _spanned(self, name: str) -> Iterator[None]:
        began, step = time.perf_counter(), self._step
        main = threading.current_thread() is threading.main_thread()
        try:
            yield
        finally:
            self._note(name, began, time.perf_counter(), _STEPS if main else _WRITES, step)

    def _note(self, name: str, began: float, ended: float, track: int, step: int, **more: int) -> None:
        self._events.append(
            {
                "name": name,
                "ph": "X",
                "ts": (began - self._origin) * 1e6,
                "dur": (ended - began) * 1e6,
                "pid": self._parallel.rank,
                "tid": track,
                "args": {"step": step, **more},
            }
        )


class _Watched:
    """A `Pending` whose end is noted by whoever sees it first: the watching thread, or the one that waits."""

    def __init__(self, inner: Pending, note: Callable[[float], None]) -> None:
        self._inner, self._note = inner, note
        self._lock = threading.Lock()
        self._ended = self._waited = False

    def done(self) -> bool:
        with self._lock:
            if not self._waited and not self._ended and self._inner.done():
                self._end()
            return self._ended or self._waited

    def wait(self) -> None:
        with self._lock:
            self._waited = True
        self._inner.wait()
        if not self._ended:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._note(time.perf_counter())


class _Watch:
    """Asks sums under way whether they have ended, in a thread of its own."""

    def __init__(self) -> None:
        self._pending: list[_Watched] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="hpcreco-timeline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def over(self, pending: Pending, note: Callable[[float], None]) -> Pending:
        watched = _Watched(pending, note)
        self._pending.append(watched)
        return watched

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            for watched in list(self._pending):
                if watched.done():
                    self._pending.remove(watched)


def write(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """The trace with the names of its tracks, complete or not at all. Format: Chrome's Trace Event Format."""
    names = []
    for rank, track in sorted({(event["pid"], event["tid"]) for event in events}):
        text = {_STEPS: "steps", _WRITES: "checkpoint writer"}.get(track, f"bucket {track - _SUMS}")
        names.append({"name": "process_name", "ph": "M", "pid": rank, "args": {"name": f"rank {rank}"}})
        names.append({"name": "thread_name", "ph": "M", "pid": rank, "tid": track, "args": {"name": text}})
    with shards.atomic(path) as temporary:
        temporary.write_text(json.dumps({"traceEvents": [*names, *events], "displayTimeUnit": "ms"}))


def hidden(events: Iterable[Mapping[str, Any]]) -> str:
    """One line: how much of the sums was done before backward was over.

    A bucket counts from when the last rank has sent it to when the last one has received it, and the end of backward
    is that of the slowest rank: what faster ranks wait for it is no matter of the sums, and said apart.
    """
    backward: dict[int, dict[int, float]] = defaultdict(dict)  # step -> rank -> end
    sums: dict[int, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event["name"] == BACKWARD:
            backward[event["args"]["step"]][event["pid"]] = event["ts"] + event["dur"]
        elif event["name"] == SUM:
            span = (event["ts"], event["ts"] + event["dur"])
            sums[event["args"]["step"]][event["args"]["bucket"]].append(span)
    if not sums or not backward:
        return "no all-reduce was seen"
    total = before = waited = 0.0
    for step, ends in backward.items():
        end = max(ends.values())
        waited += end - sum(ends.values()) / len(ends)
        work = [(max(s for s, _ in spans), max(e for _, e in spans)) for spans in sums[step].values()]
        total += _covered(work)
        before += _covered([(min(began, end), min(ended, end)) for began, ended in work])
    steps = len(backward) * 1e3
    return (
        f"{before / total:.0%} of the all-reduce ({total / steps:.1f} ms a step) is hidden behind backward; ranks wait "
        f"{waited / steps:.1f} ms a step for the slowest one's backward"
    )


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total
