"""A timeline says what was asked of it, and its one line is right."""

from __future__ import annotations

import json
import threading

import pytest
import torch

from hpcreco.parallel import timeline
from hpcreco.parallel.serial import Serial


class Slow:
    """A sum that ends when it is told to."""

    def __init__(self) -> None:
        self.number, self.pending, self.over = 4, self, threading.Event()

    def done(self) -> bool:
        return self.over.is_set()

    def wait(self) -> None:
        assert self.over.wait(10)


def event(name, began, ended, rank=0, step=3):
    return {"name": name, "ts": began, "dur": ended - began, "pid": rank, "args": {"step": step}}


def test_the_hidden_share_is_that_before_the_end_of_backward():
    events = [
        event("backward", 0, 100),
        event("all-reduce", 10, 50),
        event("all-reduce", 30, 60),  # counts once where it overlaps with the first
        event("all-reduce", 90, 140),
        event("backward", 0, 100, rank=1),
        event("all-reduce", 100, 200, rank=1),
    ]
    assert "30% of the all-reduce" in timeline.hidden(events)  # (50 + 10) / (50 + 50 + 100)
    assert timeline.hidden([event("backward", 0, 1)]) == "one rank, no all-reduce"


@pytest.mark.parametrize("seen_by", ["watch", "waiter"])
def test_the_chosen_steps_are_recorded(tmp_path, seen_by):
    said = []
    recorder = timeline.Recorder(tmp_path / "deep" / "t.json", Serial(torch.device("cpu")), said.append)
    slow = Slow()
    for step in range(timeline.LAST + 3):
        recorder.next_step()
        with recorder.span("backward"):
            if step == timeline.FIRST:
                recorder.sum(slow)
                slow.over.set()
                if seen_by == "watch":
                    while not any(e["name"] == "all-reduce" for e in recorder._events):
                        pass
                slow.pending.wait()
    recorder.close()
    assert len(said) == 1
    events = json.loads((tmp_path / "deep" / "t.json").read_text())["traceEvents"]
    steps = [e["args"]["step"] for e in events if e["name"] == "backward"]
    assert steps == list(range(timeline.FIRST, timeline.LAST + 1))
    (begun,) = [e for e in events if e["name"] == "all-reduce"]
    assert begun["args"] == {"step": timeline.FIRST, "bucket": 4}
    assert {"bucket 4", "steps"} <= {e["args"].get("name") for e in events}


def test_without_one_nothing_is_remembered():
    with timeline.OFF.span("forward"):
        timeline.OFF.sum(Slow())
    assert vars(timeline.OFF) == {}
