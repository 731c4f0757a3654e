"""Pairs of neighbouring sites and windows of the CPU kernels against their definitions, pair by pair."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hpcreco.sparse import kernels, maps
from hpcreco.sparse.tensor import pack


def sites(rows: int, size: int, seed: int = 0) -> Tensor:
    """Sorted distinct coordinates (N, 4)."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.tensor([2, size, size, size])
    return torch.unique((torch.rand(rows, 4, generator=generator) * shape).int(), dim=0)


def listed(pairs: maps.TiledPairs) -> list[tuple[int, int, int]]:
    """(offset, output row, input row), sorted; checks that every pair lies in the tile of its output row."""
    found = []
    for tile, bounds in enumerate(pairs.starts.tolist()):
        for offset, (lo, hi) in enumerate(pairwise(bounds)):
            rows = pairs.pair_out[lo:hi].tolist()
            assert all(row // kernels.TILE == tile for row in rows)
            assert len(set(rows)) == len(rows)
            found += [(offset, o, i) for o, i in zip(rows, pairs.pair_in[lo:hi].tolist(), strict=True)]
    return sorted(found)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 5), (3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize(("rows", "size"), [(0, 4), (1, 4), (900, 7), (900, 30)])
def test_submanifold_pairs_are_those_of_the_definition(
    rows: int, size: int, kernel: tuple[int, int, int], threads: int
) -> None:
    coords = sites(rows, size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = maps.submanifold_map(pack(coords), kernel, "numba")
    finally:
        torch.set_num_threads(before)
    row_of = {tuple(site): row for row, site in enumerate(coords.tolist())}
    expected = [
        (offset, row, row_of[other])
        for offset, (dx, dy, dz) in enumerate(maps.offsets(kernel, centred=True).tolist())
        for (b, x, y, z), row in row_of.items()
        if (other := (b, x + dx, y + dy, z + dz)) in row_of
    ]
    assert isinstance(found, maps.TiledMap)
    assert listed(found.forth) == sorted(expected)


@pytest.mark.parametrize(
    ("kernel", "stride"), [((2, 2, 2), (2, 2, 2)), ((1, 4, 3), (1, 4, 3)), ((3, 3, 3), (2, 2, 2))]
)
@pytest.mark.parametrize("rows", [0, 1, 900])
def test_windows_are_those_of_the_definition(
    rows: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    coords = sites(rows, 20)
    keys, found = maps.strided_map(coords, kernel, stride, "numba")
    expected = []
    for fine, (b, *cell) in enumerate(coords.tolist()):
        for offset, place in enumerate(maps.offsets(kernel, centred=False).tolist()):
            corner = [c - p for c, p in zip(cell, place, strict=True)]
            if all(c >= 0 and c % s == 0 for c, s in zip(corner, stride, strict=True)):
                expected.append((offset, (b, *(c // s for c, s in zip(corner, stride, strict=True))), fine))
    coarse = sorted({window for _, window, _ in expected})
    assert keys.tolist() == pack(torch.tensor(coarse).reshape(-1, 4)).tolist()
    row_of = {window: row for row, window in enumerate(coarse)}
    assert isinstance(found, maps.TiledMap)
    assert listed(found.forth) == sorted((offset, row_of[w], fine) for offset, w, fine in expected)
    assert listed(found.back) == sorted((offset, fine, row_of[w]) for offset, w, fine in expected)
