"""The track fit on shapes whose charge per length is known."""

import numpy as np
import pytest

from hpcreco.experiments.protodune.analysis.track import charge_along, clustered, fit


def arc(end=2.3):
    angle = np.arange(0, end, 0.005)
    return np.stack([60 * np.sin(angle), 100 * np.cos(angle), 80 * np.sin(angle)], 1), 100 * angle[-1]


def test_an_arc_of_radius_100_with_a_charge_every_0_005_rad_has_dqdx_2():
    points, length = arc()
    track = fit(points, np.ones(len(points)), step=10, max_deviation=5)
    assert np.median(track.dqdx) == pytest.approx(2, rel=0.01)
    assert track.dqdx == pytest.approx(2, rel=0.1)
    assert track.range == pytest.approx(length, rel=0.01)
    assert np.linalg.norm(track.end - points[-1]) < 2
    assert track.residual_range[0] == pytest.approx(length, abs=10)


def test_straight_segments_with_a_charge_every_0_1_have_dqdx_10():
    s = np.arange(0, 100, 0.1)[:, None]
    parts = [np.array(d) * s for d in ([0, -1.0, 0], [0.6, -0.8, 0], [0.6, 0, 0.8])]
    corners = np.array([[0, 0, 0], [0, -100, 0], [60, -180, 0]])
    points = np.concatenate([c + p for c, p in zip(corners, parts, strict=True)])
    track = fit(points, np.ones(len(points)), step=10, max_deviation=5)
    assert np.median(track.dqdx) == pytest.approx(10, rel=0.01)
    assert track.range == pytest.approx(300, rel=0.02)
    assert np.linalg.norm(track.end - points[-1]) < 1


def test_charge_is_conserved_along_the_path_and_outliers_are_left_out():
    rng = np.random.default_rng(0)
    points, _ = arc()
    charge = rng.uniform(1, 2, len(points))
    far = rng.uniform(-400, -300, (10, 3))
    track = fit(np.concatenate([points, far]), np.concatenate([charge, np.full(10, 99.0)]), 10, 5)
    lengths = np.linalg.norm(np.diff(track.path, axis=0), axis=1)
    assert (track.dqdx * lengths).sum() == pytest.approx(charge.sum(), rel=1e-9)
    assert not clustered(np.concatenate([points, far]))[-10:].any()


def test_a_thick_track_of_voxels_is_followed_to_its_end():
    cell = np.array([6.26, 8, 8])
    s = np.arange(0, 1500, 2.0)[:, None]
    direction = np.array([0.3, -0.8, 0.52]) / np.linalg.norm([0.3, -0.8, 0.52])
    jitter = np.random.default_rng(1).normal(0, 6, (len(s), 3))
    cells, number = np.unique(np.floor((s * direction + jitter) / cell), axis=0, return_counts=True)
    track = fit((cells + 0.5) * cell, number.astype(float), step=20, max_deviation=30)
    assert track.range == pytest.approx(1500, rel=0.03)
    assert np.median(track.dqdx) == pytest.approx(0.5, rel=0.05)


def test_the_start_can_be_given_and_decides_the_direction():
    points, length = arc()
    track = fit(points, np.ones(len(points)), 10, 5, start=points[-1])
    assert np.linalg.norm(track.end - points[0]) < 2
    assert track.range == pytest.approx(length, rel=0.01)


def test_what_is_no_track():
    rng = np.random.default_rng(2)
    assert fit(np.zeros((0, 3)), np.zeros(0), 10, 5) is None
    assert fit(rng.uniform(size=(4, 3)), np.ones(4), 10, 5) is None
    ball = rng.normal(size=(300, 3))
    assert fit(ball, np.ones(300), 10, 0.01) is None


def test_charge_farther_than_max_deviation_is_not_counted():
    path = np.array([[0.0, 0, 0], [0, 10, 0], [0, 20, 0]])
    points = np.array([[0.0, 5, 0], [1, 15, 0], [3, 15, 0], [0, 21, 0]])
    assert charge_along(path, points, np.array([1.0, 2, 4, 8]), 2.0).tolist() == [1, 10]
