"""Checks of one backend's operations, run by real ranks; every assertion is about values known in advance."""

from __future__ import annotations

import os
import sys

import torch

from hpcreco import parallel, world

ranks = parallel.open(sys.argv[1], world.detect())
r, n = ranks.rank, ranks.size
assert ranks.name == sys.argv[1]
assert n == world.detect().size

whole = torch.tensor([2**53 + r, -r])  # not representable in float64
exact = torch.tensor([0.1 * (r + 1), 1e300, 1e-300], dtype=torch.float64)
view = torch.full((3, 2), float(r)).t()
nothing = torch.zeros(0)
ranks.sum_([whole, exact, view, nothing])
assert whole.tolist() == [n * 2**53 + n * (n - 1) // 2, -(n * (n - 1) // 2)]
assert abs(exact[0].item() - 0.1 * n * (n + 1) / 2) < 1e-15
assert exact[2].item() == n * 1e-300
assert view.equal(torch.full((2, 3), n * (n - 1) / 2))

mine = torch.tensor([float(r)], requires_grad=True)
assert ranks.sum(mine).tolist() == [n * (n - 1) / 2]
assert mine.tolist() == [float(r)]
ranks.sum_([])

# many sums of one shape in one call and over many calls must not be mistaken for each other
for repeat in range(20):
    several = [torch.full((4,), float(k + repeat + r)) for k in range(5)]
    ranks.sum_(several)
    for k, tensor in enumerate(several):
        assert tensor.tolist() == [n * (k + repeat) + n * (n - 1) / 2] * 4

bits = torch.randn(1000, generator=torch.Generator().manual_seed(r), dtype=torch.float64)
first, second = ranks.sum(bits), ranks.sum(bits)
assert first.equal(second), "equal inputs gave other bits"
everyone = ranks.gather_object(first)
assert r != 0 or all(first.equal(other) for other in everyone)

for root in (0, n - 1):
    sent = [torch.full((2,), float(r)), torch.tensor([r])]
    ranks.broadcast_(sent, root)
    assert sent[0].tolist() == [root] * 2
    assert sent[1].tolist() == [root]
    assert ranks.broadcast_object({"rank": r, "text": "é" * r}, root) == {"rank": root, "text": "é" * root}
    gathered = ranks.gather_object(list(range(r * 1000)), root)
    assert gathered == ([list(range(k * 1000)) for k in range(n)] if r == root else None)

ranks.barrier()
os.write(1, b"checked %d\n" % r)  # whole, whatever others print
ranks.close()
