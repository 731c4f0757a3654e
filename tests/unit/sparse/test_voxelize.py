"""From rows of coordinates to sites and back, and the choice of a backend."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco import sparse
from hpcreco.sparse.tensor import EXTENT, pack, unpack

coordinate = st.integers(0, EXTENT - 1)
row = st.tuples(st.integers(0, (1 << 15) - 1), coordinate, coordinate, coordinate)


@given(st.lists(row, max_size=30))
def test_keys_sort_like_the_rows_and_unpack_to_them(rows: list[tuple[int, int, int, int]]) -> None:
    coords = torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)
    keys = pack(coords)
    assert torch.equal(unpack(keys), coords)
    assert [rows[i] for i in torch.argsort(keys, stable=True)] == sorted(rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), max_size=40), st.randoms(use_true_random=False))
def test_duplicates_are_summed_and_rows_come_back(rows: list[tuple[int, ...]], random: object) -> None:
    coords = torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)
    features = torch.randn(len(rows), 2, dtype=torch.float64)
    x, inverse = sparse.voxelize(coords, features)
    assert len({tuple(c) for c in rows}) == len(x.coords)
    assert torch.equal(x.coords[inverse], coords)
    for site, value in zip(x.coords.tolist(), x.features, strict=True):
        same = [features[i] for i, c in enumerate(rows) if list(c) == site]
        assert torch.allclose(value, torch.stack(same).sum(0))
    order = torch.randperm(len(rows))
    shuffled, _ = sparse.voxelize(coords[order], features[order])
    assert torch.equal(shuffled.coords, x.coords)


@pytest.mark.parametrize("order", ["sites' own", "another"])
def test_rows_that_are_the_sites_already_are_known_as_such(order: str) -> None:
    coords = torch.cartesian_prod(*[torch.arange(3)] * 4)
    coords = coords if order == "sites' own" else coords.flip(0)
    features = torch.randn(len(coords), 2, requires_grad=True)
    x, inverse = sparse.voxelize(coords, features)
    assert sparse.in_order(inverse, len(x.coords)) == (order == "sites' own")
    assert torch.equal(x.features[inverse], features)
    (gradient,) = torch.autograd.grad((x.features[inverse] * features.detach()).sum(), features)
    assert torch.equal(gradient, features)


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        ([[0, 4, 0, 0]], "x runs from 4 to 4, expected 0 to 3"),
        ([[0, 0, 0, 0], [0, 0, -1, 2]], "y runs from -1 to 0"),
        ([[0, 0, 0, 6]], "z runs from 6 to 6, expected 0 to 5"),
        ([[-1, 0, 0, 0]], "batch runs from -1"),
    ],
)
def test_coordinates_outside_are_refused(coords: list[list[int]], message: str) -> None:
    with pytest.raises(sparse.SparseError, match=message):
        sparse.voxelize(torch.tensor(coords), torch.zeros(len(coords), 1), spatial_size=(4, 5, 6))


def test_coordinates_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(sparse.SparseError, match=f"expected 0 to {EXTENT - 1}"):
        sparse.voxelize(torch.tensor([[0, 0, EXTENT, 0]]), torch.zeros(1, 1), spatial_size=(1, 10**6, 1))


@pytest.mark.parametrize(
    ("coords", "features"),
    [
        (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 1)),
        (torch.zeros(2, 4), torch.zeros(2, 1)),
        (torch.zeros(2, 4, dtype=torch.int32), torch.zeros(3, 1)),
        (torch.zeros(2, 4, dtype=torch.int32), torch.zeros(2)),
    ],
)
def test_shapes_and_types_are_checked(coords: torch.Tensor, features: torch.Tensor) -> None:
    with pytest.raises(sparse.SparseError, match=r"coords must|features must"):
        sparse.voxelize(coords, features)


def test_concatenation_puts_the_first_first_and_needs_the_same_sites() -> None:
    coords = torch.tensor([[0, 1, 1, 1], [0, 1, 2, 1]])
    x, _ = sparse.voxelize(coords, torch.ones(2, 1))
    both = sparse.concatenate(x, x.replace(torch.zeros(2, 2)))
    assert both.features.tolist() == [[1, 0, 0], [1, 0, 0]]
    other, _ = sparse.voxelize(coords, torch.ones(2, 1))
    with pytest.raises(sparse.SparseError, match="different sites"):
        sparse.concatenate(x, other)


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(sparse.SparseError, match="'spconv' is not one of native, minkowski"):
        sparse.use("spconv")
    assert sparse.backend() == "native"


def test_missing_minkowski_is_reported_when_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcreco.sparse import minkowski

    monkeypatch.setitem(__import__("sys").modules, "MinkowskiEngine", None)
    minkowski.engine.cache_clear()
    try:
        with pytest.raises(sparse.SparseError, match=r"use sparse\.backend: native"):
            sparse.use("minkowski")
    finally:
        minkowski.engine.cache_clear()
    assert sparse.backend() == "native"


def test_backend_is_restored_after_a_with_block() -> None:
    pytest.importorskip("MinkowskiEngine", reason="needs MinkowskiEngine")
    with sparse.use("minkowski"):
        assert sparse.backend() == "minkowski"
        x, _ = sparse.voxelize(torch.tensor([[0, 1, 1, 1]]), torch.ones(1, 1))
        assert type(x.sites).__name__ == "MinkowskiSites"
    assert sparse.backend() == "native"


def test_minkowski_for_the_cpu_refuses_a_gpu_in_one_sentence(monkeypatch):
    from hpcreco.sparse import minkowski

    monkeypatch.setattr(minkowski, "engine", lambda: SimpleNamespace(is_cuda_available=lambda: False))
    on_gpu = SimpleNamespace(is_cuda=True, device="cuda:1")
    with pytest.raises(sparse.SparseError, match=r"CPU only.*cuda:1.*tools/setup minkowski.*native"):
        minkowski.MinkowskiSites.build(on_gpu, on_gpu)
