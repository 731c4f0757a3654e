"""Sky scans whose pixels several ranks fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likelihood_doubles import silent

from hpcreco import shards
from hpcreco.cli import main
from hpcreco.collective import Alone
from hpcreco.experiments.icecube.reconstruct import sharing, skyscan
from hpcreco.experiments.icecube.reconstruct.angles import unit
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.yinf import YINF


def likelihood(parameters, data):
    """Smooth on the sphere, and another parameter that wants to be 2."""
    away = unit(parameters[:, 0], parameters[:, 1]) - torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    return 50 * away.pow(2).sum(1) + (parameters[:, 2] - 2) ** 2


def question(n=40):
    rng = np.random.default_rng(0)
    pixels = np.stack([np.arccos(rng.uniform(-1, 1, n)), rng.uniform(0, 6, n)], 1)
    start = torch.tensor([0.6, 0.1, 5.0], dtype=torch.float64)
    return skyscan.Question(
        silent(1), start, Space.of(("zenith", "azimuth", "c")), pixels, skyscan.Minimiser()
    )


class Second(Alone):
    """Rank 1 of 2: gets what was put in `asked`, keeps what it hands back."""

    rank, size = 1, 2

    def __init__(self, *asked):
        self.asked, self.given = list(asked), []

    def broadcast(self, obj, root=0):
        return self.asked.pop(0)

    def gather(self, obj, root=0):
        self.given.append(obj)


class First(Alone):
    """Rank 0 of 2, to which the other has already answered."""

    rank, size = 0, 2

    def __init__(self, other):
        self.other, self.sent = other, []

    def broadcast(self, obj, root=0):
        self.sent.append(obj)
        return obj

    def gather(self, obj, root=0):
        return [obj, self.other]


def test_two_ranks_answer_what_one_answers_bit_by_bit():
    asked = question()
    second = Second(("shard", asked), None)
    assert sharing.serve(second, lambda name: (likelihood, torch.device("cpu"))) == 1
    first = First(second.given[0])
    together = sharing.Shared(first)(likelihood, asked)
    assert all(map(np.array_equal, together, skyscan.everything(likelihood, asked)))
    assert set(second.given[0]) == {1}  # blocks of 16 of 40 pixels: 0 and 2 are rank 0's


def test_an_error_of_another_rank_is_raised_by_rank_0_and_nobody_waits():
    def broken(name):
        raise ValueError(f"no {name} here")

    second = Second(("the shard", question()), None)
    sharing.serve(second, broken)
    shared = sharing.Shared(First(second.given[0]))
    with pytest.raises(sharing.SharingError, match="no the shard here"):
        shared(likelihood, question())


def test_an_abandoned_question_is_settled_before_the_end():
    first = First({})
    shared = sharing.Shared(first)

    def stopped(parameters, data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared(stopped, question())
    gathered = []
    first.gather = lambda obj, root=0: gathered.append(obj)
    shared.close()
    assert gathered == [{}] and first.sent[-1] is None


@pytest.mark.mpi
def test_three_ranks_scan_one_event_as_one_does(simulated, tmp_path, mpiexec):
    command = ["icecube", "reconstruct", "truth", "-i", str(simulated / "pulses-00000.h5"), "--events", "3"]
    command += ["--seed", "x_parameters", "--skyscan", "--set", "skyscan.rings=[]"]
    command += ["--set", "batched_optimizer_settings.tolerance=0.1"]
    assert main([*command, "-o", str(tmp_path / "one")]) == 0
    mpiexec(3, ["-m", "hpcreco", *command, "-o", str(tmp_path / "three")])
    made = []
    for name in ("one", "three"):
        with shards.Shard(tmp_path / name / "yinf-00000.h5", YINF) as shard:
            assert shard.n_events == 1
            made.append(shard.read_events(0, 1, "sky"))
    assert len(made[0]["pixel"]) == 48
    for field in ("nside", "pixel", "loss", "parameters"):
        np.testing.assert_array_equal(made[0][field], made[1][field])
