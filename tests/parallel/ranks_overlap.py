"""Sums that begin during a backward which sums by itself, on ranks that differ in speed and in what they have to do."""

from __future__ import annotations

import os
import random
import sys
import time

import torch
from torch import Tensor, nn

from hpcreco import parallel, world
from hpcreco.nn.normalisation import BatchNorm, synchronise
from hpcreco.parallel.gradients import GradientSum

ROWS, WIDTH, LAYERS = 12, 4, 4


class Net(nn.Module):
    """Linear layers, each normalised over the rows of all ranks; a rank without rows gives the linear ones no gradient,
    so between the sums of the normalisations it sends its gradients later than others do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.norms = nn.ModuleList(BatchNorm(WIDTH) for _ in range(LAYERS))
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor, pause: float = 0.0) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x) if len(x) else x.clone().requires_grad_())
            x.register_hook(lambda _: time.sleep(random.random() * pause))
        return x.square().sum() + x.sum()


def gradients(model: Net) -> dict[str, Tensor | None]:
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def of_all_rows(model: Net, x: Tensor) -> dict[str, Tensor | None]:
    """What one rank computes."""
    model.zero_grad()
    synchronise(model, None)
    model(x).backward()
    return gradients(model)


def of_my_rows(
    model: Net, x: Tensor, ranks: parallel.Parallel, total: GradientSum
) -> dict[str, Tensor | None]:
    """The same on all ranks together."""
    model.zero_grad()
    synchronise(model, ranks.sum)
    total.begin()
    model(x, pause=0.002 * (1 + ranks.rank)).backward()
    total.finish()
    return gradients(model)


def share(step: int, rank: int, size: int) -> slice:
    """A rank's rows: in every second step one rank has them all."""
    if step % 2:
        return slice(0, ROWS) if rank == step % size else slice(0, 0)
    return slice(rank * ROWS // size, (rank + 1) * ROWS // size)


def check_exact(ranks: parallel.Parallel) -> None:
    torch.manual_seed(0)
    model = Net().double()
    total = GradientSum(model.named_parameters(), ranks, 1)
    for step in range(8):
        x = torch.randn(ROWS, WIDTH, dtype=torch.float64)
        expected = of_all_rows(model, x)
        found = of_my_rows(model, x[share(step, ranks.rank, ranks.size)], ranks, total)
        for name, value in expected.items():
            if value is None:
                assert found[name] is None, name
            else:
                torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)
    total.close()


def check_narrow(ranks: parallel.Parallel, kind: str, unit: float) -> None:
    """Within the documented bound of the exact sum, and the same bits everywhere."""
    torch.manual_seed(0)
    model = Net()
    synchronise(model, ranks.sum)
    exact = GradientSum(model.named_parameters(), ranks, 100, overlap=False)
    narrow = GradientSum(model.named_parameters(), ranks, 100, compression=kind)
    for step in range(4):
        x = torch.randn(ROWS, WIDTH)[share(step, ranks.rank, ranks.size)]
        model.zero_grad()
        narrow.begin()
        model(x).backward()
        narrow.finish()
        found = gradients(model)
        model.zero_grad()
        model(x).backward()
        sizes = {n: p.grad.abs() for n, p in model.named_parameters() if p.grad is not None}
        exact.finish()
        for name, value in gradients(model).items():
            absolute = sizes.get(name, torch.zeros(()) if value is None else torch.zeros_like(value)).clone()
            if value is None:
                assert found[name] is None, name
                continue
            ranks.sum_([absolute])
            bound = (ranks.size + 1) * unit * absolute + ranks.size * 2.0**-38 * 1e3
            assert ((found[name] - value).abs() <= bound + 1e-6 * absolute).all(), name
        everyone = ranks.gather_object(found)
        for other in everyone or []:
            assert all(v is None or torch.equal(v, other[name]) for name, v in found.items())
    exact.close()
    narrow.close()


ranks = parallel.open(sys.argv[1], world.detect())
random.seed(ranks.rank)
check_exact(ranks)
check_narrow(ranks, "fp16", 2.0**-11)
if ranks.adds(torch.bfloat16):
    check_narrow(ranks, "bf16", 2.0**-8)
os.write(1, b"checked %d\n" % ranks.rank)
ranks.close()
