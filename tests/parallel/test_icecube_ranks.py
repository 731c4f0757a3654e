"""IceCube on real ranks: the transformation and the training do not depend on how many there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from small_icecube import assignments, flags, simulate

from hpcreco.experiments.icecube import trafo
from hpcreco.train import checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Events that all tests here share."""
    return simulate(tmp_path_factory.mktemp("icecube"))


@pytest.fixture(scope="module")
def folder(simulated, tmp_path_factory, mpiexec):
    """A folder with the transformations of one, two and three ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    for ranks in (1, 2, 3):
        changes = assignments(simulated, folder / "run")
        changes += [f"data_trafo_settings.model_dir={folder / f'trafo{ranks}'}"]
        mpiexec(
            ranks,
            ["-m", "hpcreco", "icecube", "trafo", "cascade_tiny", *flags(changes)],
            check=True,
            timeout=400,
        )
    return folder


def test_the_transformation_does_not_depend_on_the_ranks(folder):
    one = trafo.read(folder / "trafo1")
    for ranks in (2, 3):
        other = trafo.read(folder / f"trafo{ranks}")
        assert other.mean == pytest.approx(one.mean, rel=1e-12, abs=0)
        assert other.std == pytest.approx(one.std, rel=1e-12, abs=0)


def weights(folder):
    found = checkpoint.load_latest(folder)
    assert found is not None
    return found[1]["model"]


@pytest.fixture(scope="module")
def trained(folder, simulated, mpiexec):
    """``trained(ranks, *flags)``: the weights after a training in float64."""

    def train(ranks, *chosen):
        out = folder / "-".join(["trained", str(ranks), *chosen])
        changes = assignments(simulated, out) + [
            f"data_trafo_settings.model_dir={folder / 'trafo1'}",
            "training_settings.precision=float64",
        ]
        mpiexec(ranks, ["-m", "hpcreco", "train", "cascade_tiny", *flags(changes), *chosen], timeout=400)
        return weights(out)

    return train


@pytest.fixture(scope="module")
def alone(trained):
    return trained(1)


def test_two_ranks_learn_what_one_learns(alone, trained, backend):
    """In float64, the same steps of the same events."""
    one, two = alone, trained(2, "--backend", backend)
    for name, value in one.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-9)


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_loses_nothing(folder, simulated):
    """Killed without warning after a checkpoint, started again by the same command: the straight run's weights."""

    def command(name, steps):
        changes = assignments(simulated, folder / name) + [
            f"data_trafo_settings.model_dir={folder / 'trafo1'}",
            f"training_settings.num_training_iterations={steps}",
            "training_settings.save_frequency=2",
            "training_settings.validation_frequency=5",
        ]
        return [sys.executable, "-m", "hpcreco", "train", "cascade_tiny", *flags(changes)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command("straight", 60), check=True, timeout=400, env=environment)
    process = subprocess.Popen(command("killed", 60), env=environment)
    try:
        until = time.monotonic() + 400
        while not checkpoint.found(folder / "killed") and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert checkpoint.found(folder / "killed")
    subprocess.run(command("killed", 60), check=True, timeout=400, env=environment)
    one, two = weights(folder / "straight"), weights(folder / "killed")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
