"""Jobs that are interrupted, each in its own way: sent, disturbed, and awaited in a thread of its own.

Each function returns what its test judges. The nodes that it takes away are nobody else's.
"""

from __future__ import annotations

from typing import Any


def time_limit(toy) -> dict[str, Any]:
    """30 steps of 3.5 s do not fit into two minutes, of which training leaves 40 s to saving; its status on the way."""
    job = toy.submit("limited", "-N", "2", "-t", "2", "--sbatch=--signal=USR2@15", TOY_SLEEP="3.5")
    toy.cluster.until(lambda: toy.attempts("limited"), "the first attempt of the time-limited job", job)
    during = toy.cluster.run("hpcreco", "status", toy.folder("limited")).stdout
    return {"job": job, "during": during, "end": toy.cluster.ended(job)}


def preempted(toy) -> dict[str, Any]:
    """Loses its node to a more urgent job after it has saved."""
    job = toy.submit("preempted", on="node6", TOY_SLEEP="0.6")
    toy.cluster.until(lambda: toy.saved("preempted"), "a checkpoint of the job to be preempted", job)
    _urgent(toy, "node6")
    return {"job": job, "end": toy.cluster.ended(job)}


def preempted_early(toy) -> dict[str, Any]:
    """Loses its node in its first step, which takes longer than the time it is given to save."""
    job = toy.submit("early", on="node7", TOY_HANG="0:0", TOY_ATTEMPT="0")
    toy.cluster.until(lambda: toy.attempts("early"), "the start of the job to be preempted early", job)
    _urgent(toy, "node7")
    return {"job": job, "end": toy.cluster.ended(job)}


def killed_rank(toy) -> dict[str, Any]:
    """Rank 1 of 2 is killed after ten steps of the second stage."""
    job = toy.submit("killed", "-N", "2", TOY_KILL="1:10", TOY_ATTEMPT="0")
    end = toy.cluster.ended(job)
    return {"job": job, "end": end, "log": toy.cluster.log(job)}


def node_down(toy) -> dict[str, Any]:
    """The second node of two loses its power after a checkpoint; a third one stands by. The watchdog waits longer than
    this does."""
    job = toy.submit("node", "-N", "2", on="node[8-10]", TOY_SLEEP="1", TOY_ATTEMPT="0")
    toy.cluster.until(lambda: toy.saved("node"), "a checkpoint of the job that loses a node", job)
    saved = toy.saved("node")[-1]
    nodes = toy.cluster.run("scontrol", "show", "hostnames", toy.cluster.job(job)["NodeList"]).stdout.split()
    toy.cluster.tool("kill-node", nodes[1])
    toy.cluster.until(lambda: not _runs(toy, job), "the end of the step that lost a node", job)
    end = toy.cluster.ended(job)
    return {"job": job, "saved": saved, "lost": nodes[1], "end": end}


def failing_twice(toy) -> dict[str, Any]:
    """Fails at the same step whenever it comes there."""
    job = toy.submit("failing", TOY_RAISE="0:4")
    end = toy.cluster.ended(job, "FAILED")
    return {"job": job, "end": end, "log": toy.cluster.log(job)}


def array_task(toy) -> dict[str, Any]:
    """One of two array tasks is asked to stop while it tiles."""
    cluster = toy.cluster
    words = ("-i", cluster.folder / "parsed", "-o", cluster.folder / "xy-requeued", "-t", "1")
    job = cluster.submit("tile", "--array", "0-1", "--", *words)
    begun = cluster.folder / f".hpcreco-{job}_1.csv"
    cluster.until(begun.exists, "the start of array task 1", f"{job}_1")
    cluster.run("scancel", "--signal=USR2", f"{job}_1")
    return {"job": job, "ends": [cluster.ended(f"{job}_{task}") for task in (0, 1)]}


ALL = (time_limit, preempted, preempted_early, killed_rank, node_down, failing_twice, array_task)


def _urgent(toy, node: str) -> None:
    options = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null"]
    toy.cluster.run("sbatch", *options, "--wrap", "sleep 1")


def _runs(toy, job: str) -> bool:
    """Whether a job's first start is still running."""
    found = toy.cluster.job(job)
    return found["JobState"] == "RUNNING" and found["Restarts"] == "0"
