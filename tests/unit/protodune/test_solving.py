"""The charge solve: its equations by brute force, exact data recovered, the same answer however shared out."""

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry, overlap
from hpcreco.experiments.protodune.solving import methods
from hpcreco.experiments.protodune.solving.equations import cell_shares, channel_sums, equations
from hpcreco.experiments.protodune.solving.event import SolveOptions, Solver, pool

PDSP = geometry.load()
FACE = PDSP.face(1)
C = geometry.N_CHANNELS
SIZE = (4, 4)


def brute_shares(face, cell, size=SIZE):
    """Area of every channel in a (y, z) cell, pixel by pixel, over the cell's pixels inside the face."""
    (n_y, n_z), found, pixels = face.pixels, np.zeros(C), 0
    for iy in range(cell[0] * size[0], (cell[0] + 1) * size[0]):
        for iz in range(cell[1] * size[1], (cell[1] + 1) * size[1]):
            if iy < n_y and iz < n_z:
                pixels += 1
                for plane in face.planes:
                    for wire, share in overlap.shares(plane, iz, iy).items():
                        if wire != geometry.NO_WIRE:
                            found[plane.channels[wire]] += share
    return found / pixels


@pytest.mark.parametrize("tpc", [1, 2])
def test_shares_are_areas_wire_by_wire(tpc):
    face = PDSP.face(tpc)
    rng = np.random.default_rng(tpc)
    cells = np.concatenate([
        [[0, 0], [747, 0], [0, 287], [747, 287], [300, 287], [700, 3]],
        np.stack([rng.integers(0, 748, 12), rng.integers(0, 288, 12)], 1),
    ])  # fmt: skip
    shares = cell_shares(face, cells, SIZE, C).toarray()
    for cell, row in zip(cells, shares, strict=True):
        np.testing.assert_allclose(row, brute_shares(face, cell), atol=1e-12)
    for plane in face.planes:  # everything is collected but at the rims
        np.testing.assert_allclose(shares[6:, np.unique(plane.channels)].sum(1), 1)


def test_a_channel_with_two_strips_meets_cells_under_both():
    """Channel 0 of face 1 is wire 347 and, round the frame, a wire 800 strips further on."""
    plane = next(p for p in FACE.planes if p.name == "U")
    channel = next(c for c in range(800) if (plane.channels == c).sum() == 2)
    yz = np.stack(np.meshgrid(np.arange(0, 748), np.arange(0, 288, 8), indexing="ij"), -1).reshape(-1, 2)
    touched = yz[cell_shares(FACE, yz, SIZE, C)[:, [channel]].toarray()[:, 0] > 0]
    wire = plane.nearest(touched[:, 1] * 8.0 + 4, touched[:, 0] * 8.0 + 4)
    strips = np.flatnonzero(plane.channels == channel)
    distance = np.abs(wire[:, None] - strips)
    assert (distance.min(1) <= 2).all()
    assert set(distance.argmin(1).tolist()) == {0, 1}


def exact(face, cells, charge, size=SIZE, dx=8, dead=()):
    """Samples that charge spread evenly over its cells gives, all at the first tick of the slice."""
    shares = cell_shares(face, cells[:, 1:], size, C).tocoo()
    sums = channel_sums(cells[shares.row, 0] * dx, shares.col, shares.data * charge[shares.row], dx, C)
    keep = ~np.isin(sums.key % C, dead)
    return type(sums)(sums.key[keep], sums.charge[keep], C)


def track(rng, n=60, x0=100):
    """Cells of a straight line, unique, sorted: in most slices a few, so that the wires determine them."""
    start, direction = np.array([x0, 200, 40]), rng.uniform((0.4, -1, -1), (1, 1, 1))
    return np.unique((start + np.arange(0, n, 0.5)[:, None] * direction).astype(np.int32), axis=0)


def determined(system):
    """Is every slice's matrix of full column rank?"""
    return np.linalg.matrix_rank(system.matrix.toarray()) == system.matrix.shape[1]


@pytest.mark.parametrize("tpc", [1, 2])
@pytest.mark.parametrize("method", ["ols", "nnls", "lasso"])
def test_exact_data_of_determined_cells_is_recovered(method, tpc):
    rng = np.random.default_rng(3)
    for _ in range(3):
        cells = track(rng)
        charge = rng.uniform(1e3, 3e4, len(cells))
        sums = exact(PDSP.face(tpc), cells, charge)
        system = equations(PDSP.face(tpc), cells, sums, SIZE)
        assert determined(system)
        found = methods.solve(system, method)
        np.testing.assert_allclose(found, charge, rtol=1e-3)
        # "used" counts every channel of an equation: a plane saw all the charge, none was made or lost
        np.testing.assert_allclose(system.matrix @ found, system.charge, rtol=1e-3, atol=1)


def test_ols_recovers_negative_charges_too_and_the_others_never_give_any():
    rng = np.random.default_rng(4)
    cells = track(rng)
    charge = rng.uniform(-1e4, 3e4, len(cells))
    system = equations(FACE, cells, exact(FACE, cells, charge), SIZE)
    np.testing.assert_allclose(methods.solve(system, "ols"), charge, rtol=1e-3, atol=1)
    for method in ("nnls", "lasso"):
        assert (methods.solve(system, method) >= 0).all()


@pytest.mark.parametrize("method", ["ols", "nnls", "lasso"])
def test_more_cells_than_wires_still_reproduce_the_channel_sums(method):
    """In a solid block of cells the charge of each is not determined; what the wires saw is."""
    rng = np.random.default_rng(5)
    y, z = np.mgrid[200:212, 50:62]
    cells = np.stack([np.full(y.size, 7), y.ravel(), z.ravel()], 1)
    system = equations(FACE, cells, exact(FACE, cells, rng.uniform(0, 2e4, len(cells))), SIZE)
    assert not determined(system)
    found = methods.solve(system, method)
    np.testing.assert_allclose(
        system.matrix @ found, system.charge, atol=(2e-3 if method == "lasso" else 1e-5) * system.charge.max()
    )


def test_nnls_is_the_minimum(monkeypatch):
    """Karush-Kuhn-Tucker: no charge could move to lower the misfit; so for both ways of getting there."""
    rng = np.random.default_rng(6)
    y, z = np.mgrid[200:210, 50:60]
    cells = np.stack([np.full(y.size, 7), y.ravel(), z.ravel()], 1)
    sums = exact(FACE, cells, rng.uniform(0, 2e4, len(cells)))
    noisy = type(sums)(sums.key, sums.charge + rng.normal(0, 5e3, len(sums.key)), C)
    system = equations(FACE, cells, noisy, SIZE)
    monkeypatch.setattr(methods, "DENSE_CELLS", 10)
    in_practice = np.linalg.norm(system.matrix @ methods.solve(system) - system.charge)
    monkeypatch.setattr(methods, "PROJECTED_STEPS", 3000)  # to the very end
    misfits = []
    for limit in (1000, 10):
        monkeypatch.setattr(methods, "DENSE_CELLS", limit)
        found = methods.solve(system)
        residual = system.matrix @ found - system.charge
        slope = system.matrix.T @ residual
        scale = np.abs(system.matrix.T @ system.charge).max()
        assert (found >= 0).all() and (slope > -1e-6 * scale).all()
        assert (np.abs(slope[found > 0]) < 1e-6 * scale).all()
        misfits.append(np.linalg.norm(residual))
    assert misfits[0] == pytest.approx(misfits[1], rel=1e-9)
    assert in_practice == pytest.approx(misfits[0], rel=1e-3)


def test_a_dead_channel_is_no_equation():
    """Its silence says nothing: without it the other two planes give the charge, with it all would be spoilt."""
    rng = np.random.default_rng(7)
    cells = track(rng)
    charge = rng.uniform(1e3, 3e4, len(cells))
    plane = next(p for p in FACE.planes if p.name == "X")
    shares = cell_shares(FACE, cells[:, 1:], SIZE, C)[:, plane.channels].toarray()
    dead = (int(plane.channels[shares.sum(0).argmax()]),)
    sums = exact(FACE, cells, charge, dead=dead)
    without = equations(FACE, cells, sums, SIZE, dead)
    assert dead[0] not in without.channels
    assert determined(without)
    np.testing.assert_allclose(methods.solve(without), charge, rtol=1e-3)
    assert np.abs(methods.solve(equations(FACE, cells, sums, SIZE)) - charge).max() > 500


def test_a_cell_whose_channels_are_all_dead_holds_nothing():
    cells = np.array([[3, 100, 100], [3, 400, 200]], np.int32)
    sums = exact(FACE, cells, np.array([5e3, 6e3]))
    dead = tuple(cell_shares(FACE, cells[:1, 1:], SIZE, C).indices.tolist())
    for method in methods.METHODS:
        found = methods.solve(equations(FACE, cells, sums, SIZE, dead), method)
        np.testing.assert_allclose(found, [0, 6e3], rtol=1e-3)


@pytest.mark.parametrize("method", ["ols", "nnls", "lasso"])
def test_slices_do_not_see_each_other(method):
    """Solved together or one at a time, with other events' samples around: the same bits."""
    rng = np.random.default_rng(8)
    cells = track(rng)
    sums = exact(FACE, cells, rng.uniform(1e3, 3e4, len(cells)))
    noisy = type(sums)(sums.key, sums.charge + rng.normal(0, 300, len(sums.key)), C)
    solver = Solver(FACE, SolveOptions(method=method))
    together = solver.solve(cells, noisy)
    alone = [solver.solve(cells[cells[:, 0] == x], noisy).charge for x in np.unique(cells[:, 0])]
    assert np.concatenate(alone).tobytes() == together.charge.tobytes()


def test_processes_do_not_change_a_bit():
    rng = np.random.default_rng(9)
    cells = np.concatenate([track(rng, x0=50), track(rng, x0=300)])
    sums = exact(FACE, cells, rng.uniform(1e3, 3e4, len(cells)))
    noisy = type(sums)(sums.key, sums.charge + rng.normal(0, 300, len(sums.key)), C)
    solved = []
    for processes in (1, 2):
        with pool(processes) as shared:
            solved.append(Solver(FACE, SolveOptions(), shared, processes).solve(cells, noisy))
    for field in ("charge", "used", "explained", "misfit"):
        assert (
            np.asarray(getattr(solved[0], field)).tobytes() == np.asarray(getattr(solved[1], field)).tobytes()
        )


def test_sums_tell_what_was_explained():
    rng = np.random.default_rng(10)
    cells = track(rng)
    charge = rng.uniform(1e3, 3e4, len(cells))
    solved = Solver(FACE, SolveOptions()).solve(cells, exact(FACE, cells, charge))
    np.testing.assert_allclose(solved.explained, charge.sum(), rtol=1e-6)
    np.testing.assert_allclose(solved.used, charge.sum(), rtol=1e-6)
    assert solved.misfit < 1e-6


def test_empty_events_and_slices():
    none = np.zeros((0, 3), np.int32)
    silent = channel_sums(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 8, C)
    for method in methods.METHODS:
        solver = Solver(FACE, SolveOptions(method=method))
        assert len(solver.solve(none, silent).charge) == 0
        assert solver.solve(np.array([[4, 100, 100]]), silent).charge.tolist() == [0.0]


def test_cells_out_of_order_are_refused():
    with pytest.raises(ValueError, match="sorted"):
        Solver(FACE, SolveOptions()).solve(
            np.array([[4, 1, 1], [3, 1, 1]]), channel_sums([32], [0], [1.0], 8, C)
        )


def test_channel_sums_add_the_ticks_of_a_slice():
    sums = channel_sums([0, 7, 8, 3], [5, 5, 5, 9], [1.0, 2.0, 4.0, 8.0], 8, C)
    assert sums.key.tolist() == [5, 9, C + 5]
    assert sums.charge.tolist() == [3, 8, 4]
    assert sums.of_slices(1, 2).charge.tolist() == [4]
    assert sums.at(np.array([5, 6, C + 5])).tolist() == [3, 0, 4]
