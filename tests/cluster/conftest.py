"""One cluster for all tests that need a Slurm, and what its jobs work on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from toy_two_tables import write_shard

from hpcreco import attempts
from hpcreco.train import checkpoint
from tests.cluster import emulated, interruptions
from tests.cluster.emulated import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A Slurm cluster of ten emulated nodes with own host names."""
    running = emulated.start(tmp_path_factory.mktemp("cluster"))
    try:
        yield running
    finally:
        emulated.stop(running)


@dataclass(frozen=True)
class Toy:
    """Trainings of the toy experiment: 30 steps in float64, saved every 3 steps; `straight` ran without a break."""

    cluster: Cluster
    config: Path

    def sets(self, name: str) -> tuple[str, ...]:
        """The flags that give a run its folder."""
        return (f"--set=output_dir={self.folder(name)}",)

    def folder(self, name: str) -> Path:
        """The run's output_dir."""
        return self.cluster.folder / name

    def submit(self, name: str, *flags: str, on: str = emulated.FIVE, **env: str) -> str:
        """A training job; returns its number."""
        return self.cluster.submit("train", self.config, *flags, "--", *self.sets(name), on=on, env=env)

    def attempts(self, name: str) -> list[attempts.Attempt]:
        """The run's attempts, oldest first."""
        return attempts.read(self.folder(name) / "attempts.csv")

    def saved(self, name: str) -> list[checkpoint.Found]:
        """The run's checkpoints."""
        return checkpoint.found(self.folder(name))

    def equals_straight(self, name: str) -> None:
        """Assert that a run came to the weights and summaries of the straight one."""
        straight, other = (checkpoint.load_latest(self.folder(run))[1] for run in ("straight", name))
        for key, weights in straight["model"].items():
            assert float((weights - other["model"][key]).abs().max() / weights.abs().max()) < 1e-10, key
        expected, found = rows(self.folder("straight")), rows(self.folder(name))
        assert [row["events"] for row in expected] == [row["events"] for row in found]
        for a, b in zip(expected, found, strict=True):
            assert float(a["train_loss"]) == pytest.approx(float(b["train_loss"]), rel=2e-6)
            assert float(a["valid_loss"]) == pytest.approx(float(b["valid_loss"]), rel=2e-6)


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of a run's summary."""
    header, *lines = (run / "summaries.csv").read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


@pytest.fixture(scope="session")
def toy(cluster: Cluster) -> Toy:
    """The toy experiment's files and config, and one undisturbed training on one rank."""
    data = cluster.folder / "toy"
    data.mkdir()
    config = {
        "experiment": "toy_two_tables:EXPERIMENT",
        "output_dir": "set per test",
        "iterations": 30,
        "precision": "float64",
        "steps": {"mode": "events", "size": 8},
        "validate_every": "4 steps",
        "save": "3 steps",
        "settings": {
            "files": [str(write_shard(data / f"train{i}.h5", 11, i)) for i in range(5)],
            "validation": [str(write_shard(data / f"valid{i}.h5", 7, 50 + i)) for i in range(2)],
        },
    }
    path = data / "toy.yaml"
    path.write_text(yaml.safe_dump(config))
    toy = Toy(cluster, path)
    cluster.run("hpcreco", "train", path, *toy.sets("straight"))
    return toy


@pytest.fixture(scope="session")
def parsed(cluster: Cluster) -> Path:
    """Twelve simulated parsed files."""
    folder = cluster.folder / "parsed"
    cluster.run("hpcreco", "simulate", "protodune", "--preset", "tiny", "--seed", "1", "--out", folder)
    return folder


@pytest.fixture
def needs_isolation(cluster: Cluster) -> None:
    """Skips where the emulated nodes have no host names of their own, so that none can lose its power."""
    if (
        shutil.which("unshare") is None
        or cluster.run("srun", "-w", "node1", "hostname").stdout.strip() != "node1"
    ):
        pytest.skip("needs unshare(2), which this machine does not permit")


@pytest.fixture(scope="session")
def interrupted(cluster: Cluster, toy: Toy, parsed: Path) -> Iterator[dict[str, Future]]:
    """The jobs of `interruptions`, by name, all on their way at once: they mostly wait for Slurm."""
    with ThreadPoolExecutor(len(interruptions.ALL)) as pool:
        yield {work.__name__: pool.submit(work, toy) for work in interruptions.ALL}
        cluster.over.set()


@pytest.fixture(scope="session", autouse=True)
def early(request) -> None:
    """What takes longest begins first, if a selected test waits for it."""
    if any("interrupted" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("interrupted")
