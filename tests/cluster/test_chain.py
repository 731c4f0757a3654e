"""jobs/chain.sh: tile, train, infer, report; each link waits for the one before."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import yaml

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LINKS = ["tile", "train", "infer", "report"]


def chain(cluster, name: str, parsed) -> tuple[dict[str, str], object]:
    """Queue a chain of small links over `parsed`; returns their jobs and the run's folder."""
    shipped = REPOSITORY / "configs" / "protodune"
    folder = cluster.folder / name
    folder.mkdir()
    run = folder / "run"
    small = {"output_dir": str(run), "data": {"data_path": str(folder / "xy"), "train_i": [1, 2]}}
    small["train"] = {"n_epochs": 1}
    train = folder / "train.yaml"
    train.write_text(yaml.safe_dump({"extends": str(shipped / "ghost3d_tiny.yaml"), **small}))
    infer = folder / "infer.yaml"
    only = {"data": {"train_i": None, "inference_i": [10, 10]}, "store_inference": True}
    infer.write_text(yaml.safe_dump({"extends": str(train), **only}))
    command = [
        REPOSITORY / "jobs" / "chain.sh",
        train,
        infer,
        run,
        "-i",
        parsed,
        "-o",
        folder / "xy",
        "-t",
        "1",
    ]
    env = {"NODES": "2", "TIME": "10", "SBATCH_OPTIONS": "--exclude=node[6-10]"}
    said = cluster.run(*command, env=env).stdout
    jobs = dict(re.findall(r"^(\w+): job (\d+)$", said, re.M))
    assert list(jobs) == LINKS
    return jobs, run


def test_links_follow_each_other(cluster, parsed):
    jobs, run = chain(cluster, "chain", parsed)
    ends = [cluster.ended(jobs[link]) for link in LINKS]
    for before, after in pairwise(ends):
        assert before["EndTime"] <= after["StartTime"]
    assert list((run / "inference").glob("*.h5"))
    assert list((run / "report").glob("*.csv"))


def test_what_depends_on_a_failed_link_never_runs_and_says_so(cluster):
    empty = cluster.folder / "empty"
    empty.mkdir()
    jobs, run = chain(cluster, "broken", empty)
    cluster.ended(jobs["tile"], "FAILED")
    assert "no wire file" in cluster.log(jobs["tile"])
    for link in LINKS[1:]:
        end = cluster.ended(jobs[link], "CANCELLED")
        assert end["Reason"] in ("DependencyNeverSatisfied", "Dependency"), end
        assert not cluster.log(jobs[link])
    assert not run.exists()
