"""Sums of gradients begin during backward, in one order on all ranks, and change nothing that was computed before."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from toy_two_tables import write_shard

from hpcreco.parallel import timeline
from hpcreco.train import checkpoint

pytestmark = pytest.mark.mpi

TOYS = Path(__file__).parent.parent / "toys"
#: every parameter of the toy has a bucket of its own
ALONE = "--set=parallel.bucket_mb=0.000001"
#: a rank's share of a step becomes several micro-batches
CUT = "--set=steps.micro_cost=7"


def test_sums_within_backward_do_not_disturb_each_other(backend, mpiexec):
    """Synchronised batch normalisation at 3 ranks, of which some have no rows and hence no gradients."""
    out = mpiexec(3, [Path(__file__).parent / "ranks_overlap.py", backend]).out
    assert sorted(out.split()) == sorted(["checked"] * 3 + ["0", "1", "2"])


def test_accumulated_micro_batches_are_those_of_one_rank(backend, mpiexec):
    """At 3 ranks; micro-batches touch all parameters, some or none; with synchronised normalisation and without."""
    out = mpiexec(3, [Path(__file__).parent / "ranks_accumulated.py", backend]).out
    assert sorted(out.split()) == sorted(["checked"] * 3 + ["0", "1", "2"])


@pytest.fixture(scope="module")
def trained(mpiexec, tmp_path_factory):
    """``trained(ranks, *flags)``: the toy's weights after 12 steps, and its folder."""
    folder = tmp_path_factory.mktemp("toy")
    config = {
        "experiment": "toy_two_tables:EXPERIMENT",
        "output_dir": "set below",
        "iterations": 12,
        "steps": {"mode": "events", "size": 8},
        "settings": {"files": [str(write_shard(folder / f"{i}.h5", 11, i)) for i in range(5)]},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))

    def train(ranks, *flags):
        out = folder / str(len(list(folder.iterdir())))
        command = ["-m", "hpcreco", "train", folder / "toy.yaml", f"--set=output_dir={out}", *flags]
        said = mpiexec(ranks, command, env={"PYTHONPATH": str(TOYS)}).out
        return checkpoint.load_latest(out)[1]["model"], said

    train.folder = folder
    return train


def test_the_order_of_sums_is_one_for_all_ranks_and_steps(backend, trained):
    """And they begin within a step's last backward, though there are several."""
    path = trained.folder / f"trace-{backend}.json"
    _, said = trained(2, "--backend", backend, "--timeline", str(path), ALONE, CUT)
    assert "is hidden behind backward" in said
    events = json.loads(path.read_text())["traceEvents"]
    begun, backwards = defaultdict(list), defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            key = event["pid"], event["args"]["step"]
            if event["name"] == timeline.SUM:
                begun[key].append((event["ts"], event["args"]["bucket"]))
            elif event["name"] == timeline.BACKWARD:
                backwards[key].append((event["ts"], event["ts"] + event["dur"]))
    steps = range(timeline.FIRST, timeline.LAST + 1)
    assert set(begun) == set(backwards) == {(rank, step) for rank in (0, 1) for step in steps}
    assert max(map(len, backwards.values())) > 2  # micro-batches, each with one backward a term but the last
    for (rank, step), sums in begun.items():
        count = 4 if step < 5 else 6  # the links' head is frozen in the first five steps
        assert [bucket for _, bucket in sorted(sums)] == list(range(count)), (rank, step)
        start, end = max(backwards[rank, step])
        assert all(start < began < end for began, bucket in sums if bucket < count - 1)
    names = {event["name"] for event in events}
    assert {"wait for data", "forward", "metrics", "update", "wait for sums"} <= names


def test_overlap_and_a_timeline_change_no_bit(trained):
    plain, _ = trained(2, ALONE, CUT)
    for flags in (["--set=parallel.overlap=false"], ["--timeline", str(trained.folder / "again.json")]):
        other, _ = trained(2, ALONE, CUT, *flags)
        assert checkpoint.digest(other) == checkpoint.digest(plain)


def test_compressed_gradients_train_to_nearly_the_same(backend, trained):
    plain, _ = trained(2)
    narrow, _ = trained(2, "--backend", backend, "--set=parallel.compression=fp16")
    assert checkpoint.digest(narrow) != checkpoint.digest(plain)
    for name, value in plain.items():
        torch.testing.assert_close(narrow[name], value, rtol=0.02, atol=0.01)
