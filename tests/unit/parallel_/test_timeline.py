"""A timeline says what was asked of it, and its one line is right."""

from __future__ import annotations

import json
import threading
import time

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
        assert self.over.wait(300)


def event(name, began, ended, rank=0, step=3, bucket=0):
    return {
        "name": name,
        "ts": began * 1e3,
        "dur": (ended - began) * 1e3,
        "pid": rank,
        "args": {"step": step, "bucket": bucket},
    }


def test_the_hidden_share_is_that_before_the_slowest_ranks_end():
    events = [
        event("backward", 0, 100),
        event("backward", 0, 60, rank=1),  # waits 40, 20 in the mean of both
        event("all-reduce", 10, 52),
        event("all-reduce", 30, 50, rank=1),  # at work from 30 to 52
        event("all-reduce", 40, 60, bucket=1),
        event("all-reduce", 35, 58, rank=1, bucket=1),  # 40 to 60, of which 8 are new
        event("all-reduce", 90, 120, bucket=2),
        event("all-reduce", 60, 115, rank=1, bucket=2),  # 90 to 120, 10 of them hidden
    ]
    said = timeline.hidden(events)
    assert said.startswith("67% of the all-reduce (60.0 ms a step)")  # (30 + 10) / (30 + 30)
    assert "wait 20.0 ms" in said
    assert timeline.hidden([event("backward", 0, 1)]) == "no all-reduce was seen"


def wait_for(condition) -> None:
    """Returns when another thread has made `condition` true."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


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
                    wait_for(lambda: any(e["name"] == "all-reduce" for e in recorder._events))
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
