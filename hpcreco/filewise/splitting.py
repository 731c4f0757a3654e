"""Who does which file: disjoint and complete for any number of workers."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

SCHEDULES = ("contiguous", "size", "dynamic")


def contiguous(n: int, parts: int) -> list[range]:
    """Blocks of floor(n / parts) in order; the remainder goes to the last parts, one each (8 over 3: 2, 3,
    3).
    """
    block, extra = divmod(n, parts)
    ends = [(part + 1) * block + max(0, part + 1 - (parts - extra)) for part in range(parts)]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def by_size(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Largest first, each to the part with the least so far; every part in the order of the list."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for number in largest_first(sizes):
        load, part = heapq.heappop(loads)
        shares[part].append(number)
        # an empty file still costs a start: counting it keeps many of them from piling up on one worker
        heapq.heappush(loads, (load + max(1, sizes[number]), part))
    return [sorted(share) for share in shares]


def largest_first(sizes: Sequence[int]) -> list[int]:
    """The numbers of `sizes`, largest first, equal ones in order."""
    return sorted(range(len(sizes)), key=lambda number: -sizes[number])


def split(sizes: list[int], parts: int, schedule: str) -> list[list[int]]:
    """The shares of a schedule; what `dynamic` hands out on demand is planned like `size`."""
    if schedule == "contiguous":
        return [list(block) for block in contiguous(len(sizes), parts)]
    return by_size(sizes, parts)
