"""Checkpoints: whole or absent, verified, loadable without pickled code, in parts."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from hpcreco.train import checkpoint


def payload(value=1.0):
    return {
        "model": {"a.weight": torch.full((3, 2), value)},
        "progress": {"epoch": 1, "x": 0.1},
        "optimizer": {"state": {}},
    }


def test_what_is_saved_comes_back_with_its_digest(tmp_path):
    path = tmp_path / checkpoint.name(4)
    digest = checkpoint.save(path, payload())
    content = checkpoint.load(path)
    assert content["digest"] == digest
    assert torch.equal(content["model"]["a.weight"], payload()["model"]["a.weight"])
    assert content["progress"] == payload()["progress"]


def test_digest_sees_every_kind_of_change():
    base = payload()
    same = {"optimizer": {"state": {}}, "progress": {"x": 0.1, "epoch": 1}, "model": dict(base["model"])}
    assert checkpoint.digest(base) == checkpoint.digest(same)
    others = [
        payload(1.0 + 1e-7),
        {**base, "progress": {"epoch": 1, "x": 0.2}},
        {**base, "progress": {"epoch": "1", "x": 0.1}},
        {**base, "model": {"a.weight": torch.ones(2, 3)}},
        {**base, "model": {"a.weight": torch.ones(3, 2, dtype=torch.float64)}},
    ]
    digests = {checkpoint.digest(other) for other in [base, *others]}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_refused_and_an_earlier_one_is_taken(tmp_path, damage):
    folder = checkpoint.folder(tmp_path)
    for epoch in (0, 1):
        checkpoint.save(folder / checkpoint.name(epoch), payload(float(epoch)))
    newest = folder / checkpoint.name(1)
    data = bytearray(newest.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "flip":
        at = data.rindex(torch.full((3, 2), 1.0).numpy().tobytes())
        data[at] ^= 1
    else:
        data = bytearray()
    newest.write_bytes(data)
    with pytest.raises(checkpoint.CheckpointError, match="checkpoint_001"):
        checkpoint.load(newest)
    notices = []
    found, content = checkpoint.load_latest(tmp_path, notices.append)
    assert found.epoch == 0
    assert float(content["model"]["a.weight"][0, 0]) == 0.0
    assert "checkpoint_001" in notices[0]


def test_a_kill_at_any_write_leaves_the_previous_checkpoint(tmp_path):
    """A child that may write only so many bytes dies in the middle of saving over the same name."""
    path = tmp_path / checkpoint.name(0)
    checkpoint.save(path, payload(7.0))
    size = path.stat().st_size
    for limit in range(0, size + 200, max(1, size // 7)):
        child = os.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                checkpoint.save(path, payload(8.0))
                os._exit(0)
            finally:  # whatever happens, no second pytest goes on
                os._exit(1)
        _, status = os.waitpid(child, 0)
        value = float(checkpoint.load(path)["model"]["a.weight"][0, 0])
        assert value == (8.0 if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else 7.0)
        checkpoint.save(path, payload(7.0))


def test_order_pointers_and_pruning(tmp_path):
    folder = checkpoint.folder(tmp_path)
    names = [checkpoint.name(e) for e in range(5)] + [checkpoint.name(2, 11), checkpoint.name(5, 30)]
    for each in names:
        checkpoint.save(folder / each, payload())
    checkpoint.point(tmp_path, "best", folder / checkpoint.name(1))
    order = [item.path.name for item in checkpoint.found(tmp_path)]
    assert order.index(checkpoint.name(2, 11)) < order.index(checkpoint.name(2))
    assert order[-1] == checkpoint.name(5, 30)
    checkpoint.prune(tmp_path, keep=2)
    left = {item.path.name for item in checkpoint.found(tmp_path)}
    assert left == {checkpoint.name(1), checkpoint.name(3), checkpoint.name(4), checkpoint.name(5, 30)}
    assert checkpoint.resolve(f"{tmp_path}@best") == folder / checkpoint.name(1)
    assert checkpoint.resolve(f"{tmp_path}@4") == folder / checkpoint.name(4)
    with pytest.raises(checkpoint.CheckpointError, match="epochs there: 1, 3, 4"):
        checkpoint.resolve(f"{tmp_path}@2")


def test_subtrees_load_and_export():
    torch.manual_seed(0)
    donor = nn.ModuleDict({"backbone": nn.Linear(3, 4), "head": nn.Linear(4, 1)})
    taker = nn.ModuleDict({"core": nn.Linear(3, 4), "other": nn.Linear(4, 2)})
    state = donor.state_dict()
    assert checkpoint.load_into(taker, state, source="donor", from_="backbone", to="core") == []
    assert torch.equal(taker["core"].weight, donor["backbone"].weight)
    assert set(checkpoint.export(state, "head")) == {"weight", "bias"}
    with pytest.raises(checkpoint.CheckpointError, match="nothing in it matches"):
        checkpoint.load_into(taker, state, source="donor", strict=False)
    with pytest.raises(checkpoint.CheckpointError, match=r"does not fit the model: .*weight"):
        checkpoint.load_into(taker, state, source="donor", from_="head", to="other")


def test_full_disk_is_reported_and_leaves_the_old_file(tmp_path):
    path = tmp_path / checkpoint.name(0)
    checkpoint.save(path, payload(7.0))
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    temporary.symlink_to("/dev/full")
    with pytest.raises(checkpoint.CheckpointError, match="free some space"):
        checkpoint.save(path, payload(8.0))
    assert float(checkpoint.load(path)["model"]["a.weight"][0, 0]) == 7.0
    assert not temporary.exists()
