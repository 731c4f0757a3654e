"""Checkpoints written beside the training are those that a plain save writes, in order, and failures are not lost."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from hpcreco.train import checkpoint
from hpcreco.train.writer import CheckpointWriter, snapshot


def payload(model: nn.Module, step: int = 0) -> dict:
    return {
        "model": model.state_dict(),
        "progress": {"step": step, "x": 0.1},
        "list": [torch.ones(2), (1, "a")],
    }


@pytest.fixture
def writer(tmp_path):
    writer = CheckpointWriter(tmp_path, keep=None)
    yield writer
    writer.close()


@pytest.fixture
def gate(monkeypatch):
    """Writes wait until `gate.set()`; the names of those that have begun are in `gate.begun`, `gate.first` says so."""
    gate, save = threading.Event(), checkpoint.save
    gate.begun, gate.first = [], threading.Event()

    def slow(path, content):
        gate.begun.append(path.name)
        gate.first.set()
        assert gate.wait(300)
        return save(path, content)

    monkeypatch.setattr(checkpoint, "save", slow)
    yield gate
    gate.set()


def test_the_file_is_that_of_a_plain_save(writer, tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model.tied = model[0].weight
    writer.save(checkpoint.name(0), payload(model), best=True)
    writer.finish()
    checkpoint.save(tmp_path / "plain", payload(model))
    written = checkpoint.folder(tmp_path) / checkpoint.name(0)
    assert written.read_bytes() == (tmp_path / "plain").read_bytes()
    assert checkpoint.pointed(tmp_path, "latest") == checkpoint.pointed(tmp_path, "best") == written


def test_what_is_saved_is_the_state_at_the_call(writer, gate, tmp_path):
    model = nn.Linear(2, 2)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    state = payload(model)
    writer.save(checkpoint.name(0), state, best=False)
    with torch.no_grad():
        model.weight.zero_()
    state["progress"]["step"] = 5
    assert checkpoint.pointed(tmp_path, "latest") is None, "a checkpoint is named before it is there"
    gate.set()
    writer.finish()
    content = checkpoint.load(checkpoint.pointed(tmp_path, "latest"))
    assert all(torch.equal(content["model"][name], value) for name, value in expected.items())
    assert content["progress"]["step"] == 0


def test_one_write_is_under_way_and_the_next_waits(writer, gate, tmp_path):
    model = nn.Linear(2, 2)
    writer.save(checkpoint.name(0), payload(model), best=True)
    second = threading.Thread(target=writer.save, args=(checkpoint.name(1), payload(model), False))
    second.start()
    assert gate.first.wait(300)
    second.join(0.05)
    assert second.is_alive()
    assert gate.begun == [checkpoint.name(0)]
    gate.set()
    second.join(300)
    writer.finish()
    assert gate.begun == [checkpoint.name(0), checkpoint.name(1)]
    assert checkpoint.pointed(tmp_path, "latest").name == checkpoint.name(1)
    assert checkpoint.pointed(tmp_path, "best").name == checkpoint.name(0)


@pytest.mark.parametrize("notices", ["check", "finish", "save"])
def test_a_failed_write_is_raised_where_training_looks(writer, tmp_path, notices):
    checkpoint.folder(tmp_path).write_text("in the way")
    model = nn.Linear(1, 1)
    writer.save(checkpoint.name(0), payload(model), best=False)
    writer._writing.exception()  # has ended
    calls = {
        "check": writer.check,
        "finish": writer.finish,
        "save": lambda: writer.save(checkpoint.name(1), payload(model), False),
    }
    with pytest.raises(checkpoint.CheckpointError, match="free some space"):
        calls[notices]()
    writer.check()  # once


def test_closing_waits_and_tells_of_a_failure(writer, gate, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("hpcreco.train.writer.LOG.propagate", True)
    checkpoint.folder(tmp_path).write_text("in the way")
    writer.save(checkpoint.name(0), payload(nn.Linear(1, 1)), best=False)
    threading.Timer(0.05, gate.set).start()
    writer.close()
    assert "cannot write" in caplog.text


def test_a_snapshot_shares_no_memory_but_keeps_ties():
    a = torch.arange(6.0)
    value = {"a": a, "again": a.detach(), "row": a.view(2, 3)[1], "t": (a.view(2, 3).t(), [1, None])}
    copy = snapshot(value)
    assert checkpoint.digest(copy) == checkpoint.digest(value)
    assert copy["a"].data_ptr() == copy["again"].data_ptr() != a.data_ptr()
    a.zero_()
    assert copy["row"].tolist() == [3, 4, 5]
    assert copy["t"][1] == [1, None]
