"""Voxel tools against what they mean, voxel by voxel in plain Python."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcreco.experiments.protodune import voxels

CELL = st.tuples(*[st.integers(-4, 4)] * 3)
CELLS = st.lists(CELL, max_size=25, unique=True)


def table(cells):
    return np.array(cells, np.int32).reshape(-1, 3)


@given(CELLS, CELLS)
@settings(max_examples=60, deadline=None)
def test_compare_is_set_algebra_and_keeps_both_values(a, b):
    found = voxels.compare(table(a), table(b))
    assert {a[i] for i in found.only_a} == set(a) - set(b)
    assert {b[i] for i in found.only_b} == set(b) - set(a)
    assert [a[i] for i in found.both_a] == [b[i] for i in found.both_b]
    assert {a[i] for i in found.both_a} == set(a) & set(b)
    assert sum(map(len, (found.only_a, found.both_a))) == len(a)


@given(CELLS, st.lists(CELL, max_size=25))
@settings(max_examples=60, deadline=None)
def test_lists_and_new_values(cells, wanted):
    coords, values = table(cells), np.arange(len(cells), dtype=float)
    assert voxels.in_list(coords, table(wanted)).tolist() == [c in set(wanted) for c in cells]
    unique = list(dict.fromkeys(wanted))
    changed = voxels.set_values(coords, values, table(unique), 100 + np.arange(len(unique)))
    assert changed.tolist() == [100 + unique.index(c) if c in unique else k for k, c in enumerate(cells)]
    assert values.tolist() == list(range(len(cells)))


@given(CELLS, CELL, CELL)
@settings(max_examples=60, deadline=None)
def test_a_box_holds_its_lower_faces_and_not_its_upper_ones(cells, low, high):
    expected = [all(lo <= c < hi for lo, c, hi in zip(low, cell, high, strict=True)) for cell in cells]
    assert voxels.in_box(table(cells), low, high).tolist() == expected
    assert voxels.in_box(table(cells), (None, low[1], None)).tolist() == [c[1] >= low[1] for c in cells]


def test_at_least_includes_the_threshold():
    assert voxels.at_least(np.array([0.2, 0.35, 0.5]), 0.35).tolist() == [False, True, True]
    assert voxels.at_least(np.array([[1, 0], [0, 1]]), 1, column=1).tolist() == [False, True]


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("keep_scale", [False, True])
@given(
    cells=st.lists(CELL, max_size=25),
    factors=st.sampled_from([(1, 1, 1), (2, 3, 1), (-1, 2, 2), (-1, -1, 3)]),
)
@settings(max_examples=60, deadline=None)
def test_downsample_sums_or_averages_what_lies_inside(cells, factors, reduce, keep_scale):
    values = np.arange(len(cells) * 2, dtype=float).reshape(-1, 2)
    inside = defaultdict(list)
    for cell, value in zip(cells, values, strict=True):
        coarse = [(c // f) * (f if keep_scale else 1) for c, f in zip(cell, factors, strict=True) if f != -1]
        inside[tuple(coarse)].append(value)
    coords, out = voxels.downsample(table(cells), values, factors, reduce, keep_scale)
    assert [tuple(c) for c in coords.tolist()] == sorted(inside)
    for cell, value in zip(coords.tolist(), out, strict=True):
        expected = np.sum(inside[tuple(cell)], axis=0) / (1 if reduce == "sum" else len(inside[tuple(cell)]))
        np.testing.assert_allclose(value, expected)


@pytest.mark.parametrize("factors", [(0, 1, 1), (1, 1), (-2, 1, 1)])
def test_downsample_refuses_other_factors(factors):
    with pytest.raises(voxels.VoxelError, match="at least 1"):
        voxels.downsample(np.zeros((1, 3), int), np.ones(1), factors)


def test_voxelise_sums_averages_and_takes_the_most_frequent():
    rng = np.random.default_rng(4)
    points = rng.uniform(-3, 3, (300, 3))
    values = np.stack([rng.random(300), rng.random(300), rng.integers(0, 4, 300)], 1)
    coords, out = voxels.voxelise(points, (1.5, 2, 3), values, n_sum=1, n_mean=1)
    inside = defaultdict(list)
    for point, value in zip(points, values, strict=True):
        inside[tuple(np.floor(point / (1.5, 2, 3)).astype(int).tolist())].append(value)
    assert [tuple(c) for c in coords.tolist()] == sorted(inside)
    for cell, row in zip(coords.tolist(), out, strict=True):
        rows = np.array(inside[tuple(cell)])
        counts = Counter(rows[:, 2])
        most = min(v for v, n in counts.items() if n == max(counts.values()))
        np.testing.assert_allclose(row, [rows[:, 0].sum(), rows[:, 1].mean(), most])


@given(CELLS)
@settings(max_examples=40, deadline=None)
def test_dense_and_sparse_are_inverse(cells):
    cells = sorted(cells)
    values = np.arange(1.0, len(cells) + 1)
    grid = voxels.dense(table(cells), values, (9, 9, 9), low=(-4, -4, -4))
    assert grid.sum() == values.sum()
    coords, back = voxels.sparse(grid)
    assert [tuple(c) for c in (coords - 4).tolist()] == cells
    assert back.tolist() == values.tolist()


def test_dense_refuses_what_does_not_fit():
    with pytest.raises(voxels.VoxelError, match="do not fit"):
        voxels.dense(np.array([[0, 0, 3]]), np.ones(1), (3, 3, 3))


def test_limits():
    low, high = voxels.limits(np.array([[1, -2, 3], [0, 5, 3]]))
    assert low.tolist() == [0, -2, 3]
    assert high.tolist() == [2, 6, 4]
    assert voxels.limits(np.zeros((0, 3), int))[1].tolist() == [0, 0, 0]
