"""tools/slurm-cluster itself: what it starts it ends, whatever happened in between."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import emulated

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def pair(cluster, tmp_path_factory):
    """A second cluster, of two nodes, beside the first; it belongs to a process that the test may end."""
    owner = subprocess.Popen(["sleep", "600"])
    state = f"{cluster.environment['SLURM_CLUSTER_DIR']}-2"
    own = {
        "SLURM_CLUSTER_DIR": state,
        "SLURM_CLUSTER_PORT": str(emulated.free_ports(3)),
        "SLURM_CLUSTER_OWNER": str(owner.pid),
        "SLURM_CONF": f"{state}/slurm.conf",
    }
    pair = replace(cluster, environment=cluster.environment | own)
    try:
        pair.tool("up", "2")
        yield pair, owner
    finally:
        owner.kill()
        owner.wait()
        pair.tool("down")
        subprocess.run(["rm", "-rf", state])


def alive(cluster) -> list[str]:
    """The command lines of the cluster's daemons."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{cluster.environment['SLURM_CLUSTER_DIR']}/" in words:
            found.append(words)
    return found


def test_a_node_loses_its_power_and_comes_back(needs_isolation, pair):
    cluster, _ = pair
    script = "echo $$ >pid.$(hostname); exec sleep 600"
    step = subprocess.Popen(
        ["srun", "-N", "2", "sh", "-c", script],
        env=cluster.environment,
        cwd=cluster.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        files = [cluster.folder / f"pid.node{number}" for number in (1, 2)]
        cluster.until(lambda: all(file.exists() and file.read_text().strip() for file in files), "both tasks")
        first, second = (Path(f"/proc/{file.read_text().strip()}/cmdline") for file in files)
        cluster.tool("kill-node", "node2")
        cluster.until(lambda: not (second.exists() and second.read_bytes()), "the end of node2's task")
        assert b"sleep" in first.read_bytes()
        cluster.tool("start-node", "node2")
        cluster.tool("status")
    finally:
        step.kill()
        step.wait()


def test_up_again_changes_nothing_and_another_size_is_refused(pair):
    cluster, _ = pair
    before = set(alive(cluster))  # a daemon may fork for a moment: names, not processes
    cluster.tool("up", "2")
    assert set(alive(cluster)) == before
    refused = cluster.run(Path(__file__).parents[2] / "tools" / "slurm-cluster", "up", "3", check=False)
    assert refused.returncode == 1
    assert "already up with 2 nodes" in refused.stderr


def test_a_cluster_ends_with_its_owner(pair):
    cluster, owner = pair
    assert len(alive(cluster)) >= 4  # munged, slurmctld, two slurmd
    owner.kill()
    owner.wait()
    cluster.until(lambda: not alive(cluster), "the end of a cluster whose owner is gone")
    assert os.path.exists(cluster.environment["SLURM_CONF"])
