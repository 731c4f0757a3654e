"""A toy of ragged tables with two differently weighted loss terms; run by real ranks of tests in this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpcreco import parallel, world
from hpcreco.data.batch import Batch, Event, collate
from hpcreco.data.plan import Step, StepPlanner
from hpcreco.data.sharing import share
from hpcreco.parallel.gradients import GradientSum

SIZES = [3, 1, 4, 2]  # events per file


class Index:
    first = np.concatenate([[0], np.cumsum(SIZES)])


def event(number: int, dtype: str = "f8") -> Event:
    rng = np.random.default_rng(number)
    hits, pulses = rng.integers(0, 6), rng.integers(1, 9)
    return Event(
        {
            "hits": {"x": rng.normal(size=(hits, 3)).astype(dtype), "y": rng.normal(size=hits).astype(dtype)},
            "pulses": {"x": rng.normal(size=(pulses, 3)).astype(dtype)},
        }
    )


class Net(nn.Module):
    """Shares a trunk between two heads; `frozen` and `unused` get no gradient, `late` only from hits."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.hit, self.pulse = nn.Linear(5, 1), nn.Linear(5, 1)
        self.unused = nn.Linear(2, 2)

    def terms(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        """(sum, weight, coefficient) of each term; a table without rows gives no term to differentiate."""
        terms = {}
        if batch.rows("hits"):
            guess = self.hit(self.frozen(torch.tanh(self.trunk(batch["hits/x"]))))[:, 0]
            terms["hit"] = (
                (guess - batch["hits/y"]).square().sum(),
                torch.tensor(float(batch.rows("hits"))),
                0.7,
            )
        if batch.rows("pulses"):
            guess = self.pulse(torch.tanh(self.trunk(batch["pulses/x"])))
            terms["pulse"] = (guess.abs().sum(), torch.tensor(float(batch.n_events)), 2.0)
        return terms


def train(
    ranks: parallel.Parallel, dtype: torch.dtype, budget: float | None, bucket_bytes: int
) -> dict[str, Tensor]:
    """Four steps in mode `files` of two files per step on all ranks together; returns the weights."""
    torch.manual_seed(1)
    model = Net().to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), 0.05, weight_decay=0.01)
    total = GradientSum(model.named_parameters(), ranks, bucket_bytes)
    costs = np.array([1.0 + sum(len(f["x"]) for f in event(n).tables.values()) for n in range(sum(SIZES))])
    planner = StepPlanner(Index(), costs, "files", 2, seed=3)
    stream = planner.stream(ranks=1)
    for _ in range(4):
        take(model, optimizer, next(stream), ranks, budget, total)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def take(
    model: Net,
    optimizer: torch.optim.Optimizer,
    step: Step,
    ranks: parallel.Parallel,
    budget: float | None,
    total: GradientSum,
) -> None:
    dtype = "f8" if model.trunk.weight.dtype == torch.float64 else "f4"
    part = share(step, ranks.rank, ranks.size, budget)
    outcomes = []
    for refs, costs in part.micro_batches:
        events = [event(int(Index.first[ref.shard]) + ref.event, dtype) for ref in refs]
        outcomes.append(model.terms(collate(events, refs, costs, like=event(0, dtype))))
    weights = torch.zeros(2, dtype=torch.float64)
    for terms in outcomes:
        weights += torch.tensor(
            [float(terms[name][1]) if name in terms else 0.0 for name in ("hit", "pulse")]
        )
    ranks.sum_([weights])
    optimizer.zero_grad()
    losses = [
        terms[name][2] * terms[name][0] / weight
        for terms in outcomes
        for name, weight in zip(("hit", "pulse"), weights.tolist(), strict=True)
        if name in terms
    ]
    if budget is None and losses:  # all in one backward, during which the gradients are sent
        total.begin()
        torch.stack(losses).sum().backward()
    else:
        for loss in losses:
            loss.backward(retain_graph=True)
    total.finish()
    assert model.unused.weight.grad is None, "a parameter that nobody used has a gradient"
    assert model.frozen.weight.grad is None
    optimizer.step()


def main(backend: str, out: str) -> None:
    """Weights of each variant of the training, the same when repeated, from every rank to `out`."""
    ranks = parallel.open(backend, world.detect())
    variants = {
        f"{dtype}/{budget}/{bucket}": (dtype, budget, bucket)
        for dtype, budget, bucket in [
            (torch.float64, None, 64),
            (torch.float64, 8.0, 32 << 20),
            (torch.float32, 8.0, 64),
        ]
    }
    results = {name: train(ranks, *variant) for name, variant in variants.items()}
    for name, variant in variants.items():
        again = train(ranks, *variant)
        assert all(torch.equal(again[key], tensor) for key, tensor in results[name].items()), (
            "another run, other bits"
        )
    torch.save(results, Path(out) / f"{ranks.size}-{ranks.rank}.pt")
    ranks.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
