"""P ranks on the same global steps give what one rank gives, whichever backend joins them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.mpi

TOY = Path(__file__).parent / "ranks_toy.py"


@pytest.fixture(scope="module")
def alone(mpiexec, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    mpiexec(1, [TOY, "serial", folder])
    return torch.load(folder / "1-0.pt")


def difference(one: dict, other: dict) -> float:
    """Largest difference of two state dicts over the largest entry."""
    largest = max(float(t.abs().max()) for t in one.values())
    return max(float((one[k] - other[k]).abs().max()) for k in one) / largest


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_ranks_gives_what_one_gives(backend, ranks, alone, mpiexec, tmp_path):
    mpiexec(ranks, [TOY, backend, tmp_path])
    results = [torch.load(tmp_path / f"{ranks}-{rank}.pt") for rank in range(ranks)]
    for variant, weights in alone.items():
        tolerance = 1e-10 if variant.startswith("torch.float64") else 1e-4
        assert difference(weights, results[0][variant]) < tolerance, variant
        for one, other in pairwise(result[variant] for result in results):
            assert all(torch.equal(one[key], other[key]) for key in one), f"{variant}: ranks differ in bits"


def test_one_rank_trains_something(alone):
    """Guards the test above: weights must move, and differ where rounding does."""
    weights = alone["torch.float64/None/64"]
    torch.manual_seed(1)
    start = torch.nn.Linear(3, 5).double()
    assert not torch.allclose(weights["trunk.weight"], start.weight)
    assert difference(weights, alone["torch.float64/8.0/33554432"]) < 1e-10
