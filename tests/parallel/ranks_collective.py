"""Checks of the collective operations, run by real ranks; values are known in advance."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np

from hpcreco.collective import connect

together = connect()
r, n = together.rank, together.size

# numbers whose sum depends on the order of addition: the order must be that of the ranks
values = [np.array([1e16, 1.0, -1e16 * (k % 2)]) * (k + 1) / 3 for k in range(n)]
expected = values[0].copy()
for value in values[1:]:
    expected = expected + value
assert together.sum(values[r]).tobytes() == expected.tobytes()
for dtype in ("f4", "f8", "i8", "u2"):
    for shape in ((), (0,), (3,), (2, 3)):
        total = together.sum(np.full(shape, r + 1, dtype))
        assert total.shape == shape
        assert total.dtype == dtype
        assert (total == n * (n + 1) // 2).all()
strided = np.arange(12.0).reshape(3, 4).T
np.testing.assert_array_equal(together.sum(strided), strided * n)

for root in (0, n - 1):
    assert together.broadcast({"root": r}, root) == {"root": root}
    assert together.gather(r * r, root) == ([k * k for k in range(n)] if r == root else None)
with together.progressing():  # messages arrive and stay in order while another thread polls
    assert together.broadcast(r) == 0
assert together.alltoall([(r, k) for k in range(n)]) == [(k, r) for k in range(n)]

for count in (0, 1, n - 1, 40):
    mine = []
    for number in together.take(count):
        mine.append(number)
        time.sleep(0.001 * math.sqrt(r))
    everyone = together.gather(mine)
    assert r != 0 or sorted(itertools.chain(*everyone)) == list(range(count))

# one rank leaves early: the others still get everything that it did not take
mine = list(itertools.islice(together.take(30), 2 if r == n - 1 else None))
everyone = together.gather(mine)
assert r != 0 or sorted(itertools.chain(*everyone)) == list(range(30))

# rank 0 leaves early: the serving ends, nobody waits
mine = []
for number in together.take(10_000):
    mine.append(number)
    time.sleep(0.002)
    if r == 0 and len(mine) == 2:
        break
everyone = together.gather(mine)
assert r != 0 or len(set(itertools.chain(*everyone))) == sum(map(len, everyone)) < 10_000
together.barrier()
print("checked", r, flush=True)
