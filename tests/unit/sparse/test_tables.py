"""Tables of neighbours are those of the definition, built by torch operations and by Triton kernels (in its interpreter
where there is no GPU).
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from hpcreco.sparse import maps, tables
from hpcreco.sparse.tables import SameRows, Table, TableMap
from hpcreco.sparse.tensor import Triple, pack

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
paths = pytest.mark.parametrize("path", ["torch", "triton"])


def cloud(rows: int, size: Triple = (6, 7, 5), events: int = 3) -> Tensor:
    """Distinct sorted rows of batch, x, y, z; events lie in the packed order without a gap between them."""
    draw = torch.Generator().manual_seed(rows)
    columns = [torch.randint(0, n, (rows,), generator=draw) for n in (events, *size)]
    return torch.unique(torch.stack(columns, 1), dim=0).int().to(DEVICE)


def pairs(table: Table) -> set[tuple[int, int, int]]:
    """(offset, output row, input row) of every entry."""
    order = range(table.n_out) if table.order is None else table.order.tolist()
    return {
        (k, order[column], row)
        for k, rows in enumerate(table.rows.tolist())
        for column, row in enumerate(rows)
        if row >= 0
    }


def exchanged(found: set[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
    return {(k, i, o) for k, o, i in found}


@paths
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 1, 3), (5, 5, 3)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 150], ids=lambda n: f"{n} rows")
def test_submanifold_tables(path: str, kernel: Triple, rows: int) -> None:
    coords = cloud(rows)
    found = maps.submanifold_map(pack(coords), kernel, path)
    assert isinstance(found, TableMap)
    sites = {tuple(site): row for row, site in enumerate(coords.tolist())}
    offsets = list(itertools.product(*[range(-(n // 2), n // 2 + 1) for n in kernel]))
    expected = {
        (k, row, sites[neighbour])
        for (b, x, y, z), row in sites.items()
        for k, (i, j, m) in enumerate(offsets)
        if (neighbour := (b, x + i, y + j, z + m)) in sites
    }
    assert pairs(found.forth) == pairs(found.back) == expected
    assert found.mirrored
    assert {(len(offsets) - 1 - k, o, i) for k, o, i in exchanged(expected)} == expected


@paths
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((2, 2, 2), (2, 2, 2)), ((1, 2, 2), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((1, 2, 1), (2, 3, 1))],
    ids=str,
)
@pytest.mark.parametrize("rows", [0, 1, 200], ids=lambda n: f"{n} rows")
def test_strided_tables(path: str, kernel: Triple, stride: Triple, rows: int) -> None:
    coords = cloud(rows)
    keys, found = maps.strided_map(coords, kernel, stride, path)
    places = list(itertools.product(*[range(n) for n in kernel]))
    windows: dict[int, set[tuple[int, int]]] = {}
    for row, (b, *site) in enumerate(coords.tolist()):
        for k, place in enumerate(places):
            corner = [s - p for s, p in zip(site, place, strict=True)]
            if all(c >= 0 and c % s == 0 for c, s in zip(corner, stride, strict=True)):
                cell = torch.tensor([[b, *(c // s for c, s in zip(corner, stride, strict=True))]])
                windows.setdefault(int(pack(cell)), set()).add((k, row))
    assert keys.tolist() == sorted(windows)
    expected = {(k, o, row) for o, key in enumerate(sorted(windows)) for k, row in windows[key]}
    assert isinstance(found, TableMap)
    assert (found.forth.n_out, found.forth.n_in, found.back.n_out) == (len(keys), len(coords), len(coords))
    assert pairs(found.forth) == expected
    assert pairs(found.back) == exchanged(expected)


def test_one_cell_needs_no_table() -> None:
    assert isinstance(maps.submanifold_map(pack(cloud(9)), (1, 1, 1), "torch"), SameRows)


def test_large_clouds_are_searched_and_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = cloud(40)
    x, weight = torch.randn(len(coords), 3, device=DEVICE), torch.randn(27, 3, 4, device=DEVICE)

    def result() -> list[Tensor]:
        found = maps.submanifold_map(pack(coords), (3, 3, 3), "torch")
        parameters = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = found.convolution(*parameters)
        return [found.forth.rows, out, *torch.autograd.grad(out.square().sum(), parameters)]

    whole = result()
    monkeypatch.setattr(tables, "GATHERED_BYTES", 5000)
    for ours, theirs in zip(result(), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [16, 64])
def test_tiles_know_their_offsets_and_offsets_their_tiles(size: int) -> None:
    from hpcreco.sparse.gpu import launch

    table = maps.submanifold_map(pack(cloud(90)), (3, 3, 3), "triton").forth
    there = [
        [bool((part >= 0).any()) for part in rows.split(size)]
        for rows in table.rows  # (K, tiles)
    ]
    assert not all(map(all, there))
    offsets, counts = launch._offsets_of_tiles(table, size)
    found = [row[:count] for row, count in zip(offsets.tolist(), counts.tolist(), strict=True)]
    assert found == [[k for k, has in enumerate(column) if has] for column in zip(*there, strict=True)]
    tiles, counts = launch._tiles_of_offsets(table, size)
    found = [row[:count] for row, count in zip(tiles.tolist(), counts.tolist(), strict=True)]
    assert found == [[tile for tile, has in enumerate(row) if has] for row in there]


def test_an_ordered_table_has_like_columns_side_by_side() -> None:
    from hpcreco.sparse.gpu import launch

    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 6, 5, 4)]).int().to(DEVICE)
    plain = maps.submanifold_map(pack(coords), (3, 3, 3), "torch").forth
    sorted_ = launch.ordered(plain)
    assert sorted(sorted_.order.tolist()) == list(range(len(coords)))
    assert torch.equal(sorted_.rows, plain.rows[:, sorted_.order.long()])

    def patterns(table: Table) -> int:
        """Number of places where one pattern gives way to another."""
        there = table.rows >= 0
        return int((there[:, 1:] != there[:, :-1]).any(0).sum())

    distinct = len(torch.unique(plain.rows >= 0, dim=1).t())
    assert distinct == 27  # inside, and on each face, edge and corner of the box
    assert patterns(sorted_) == distinct - 1 < patterns(plain)
