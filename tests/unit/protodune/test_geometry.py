import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.joining import place, shift

PDSP = geometry.load("pdsp")


def plane(tpc, name):
    return next(p for p in PDSP.face(tpc).planes if p.name == name)


def test_boxes_of_the_real_drift_volumes():
    assert PDSP.tpcs == tuple(range(12))
    assert PDSP.face(1).r_min == (-3587, 76, 3)
    assert PDSP.face(1).r_max == (0, 6060, 2303)
    assert (PDSP.face(2).r_min[0], PDSP.face(2).r_max[0]) == (0, 3587)
    assert (PDSP.face(5).r_min[2], PDSP.face(5).r_max[2]) == (2323, 4623)
    assert PDSP.face(10).apa == 5
    assert PDSP.face(1).pixels == (2992, 1150)


@pytest.mark.parametrize(("tpc", "order"), [(2, ("V", "X", "U")), (1, ("U", "X", "V"))])
def test_planes_are_ordered_by_angle(tpc, order):
    assert PDSP.face(tpc).feature_names == order
    assert [p.angle for p in PDSP.face(tpc).planes] == [-35.7, 0, 35.7]


def test_offsets_directions_and_channels_of_the_table():
    expected = {
        (2, "U"): (2.657316, 0.583541), (2, "V"): (-1744.444068, -0.583541), (2, "X"): (1.375, 0),
        (1, "U"): (-1746.548568, -0.583541), (1, "V"): (1.507316, 0.583541), (1, "X"): (1.3, 0),
    }  # fmt: skip
    for (tpc, name), (offset, e_y) in expected.items():
        assert plane(tpc, name).offset == pytest.approx(offset, abs=1e-9)
        assert plane(tpc, name).direction[1] == e_y
    ends = {
        (2, "U"): [347, 0, 799, 0], (2, "V"): [800, 1147, 1148, 1147], (2, "X"): [1600, 1947, 1948, 2079],
        (1, "U"): [400, 747, 748, 747], (1, "V"): [1547, 1200, 1199, 1200], (1, "X"): [2080, 2427, 2428, 2559],
    }  # fmt: skip
    for (tpc, name), channels in ends.items():
        assert plane(tpc, name).channels[[0, 347, 348, -1]].tolist() == channels


def test_348_channels_of_each_induction_plane_own_two_strips():
    for tpc in (1, 2):
        for name in "UV":
            _, strips = np.unique(plane(tpc, name).channels, return_counts=True)
            assert (len(strips), (strips == 2).sum(), strips.max()) == (800, 348, 2)


@pytest.mark.parametrize(("tpc", "x", "drift"), [(1, -3580.0, 7.0), (2, 3580.0, 7.0), (1, -7.0, 3580.0)])
def test_local_x_is_distance_to_the_anode_plus_drift_time(tpc, x, drift):
    local, keep = PDSP.to_local(tpc, np.array([[x, 100.0, 50.0]]), np.array([10.0]))
    assert keep.all()
    np.testing.assert_allclose(local, [[drift + 1.565 * 260, 24, 47]])


def test_points_outside_box_or_window_are_masked_unless_limits_are_off():
    points = np.array([[-1.0, 100, 50], [1, 100, 50], [-1, 75, 50], [-1, 100, 2303], [-3587, 100, 50]])
    _, keep = PDSP.to_local(1, points, 0.0)
    assert keep.tolist() == [True, False, False, False, True]
    late = np.array([[-3587.0, 100, 50], [-3587.0, 100, 50], [-3587.0, 100, 50]])
    _, keep = PDSP.to_local(1, late, np.array([-250.1, 2749.9, 2750.1]))
    assert keep.tolist() == [False, True, False]
    assert PDSP.to_local(1, points, 1e6, limits=False)[1].all()


def test_nearest_wire_is_the_wire_whose_centre_line_the_point_is_closest_to():
    rng = np.random.default_rng(1)
    z, y = rng.uniform(0, 2300, 500), rng.uniform(0, 5984, 500)
    for tpc in (1, 2):
        for p in PDSP.face(tpc).planes:
            distance = np.abs(
                (p.direction[0] * z + p.direction[1] * y)[:, None] / 2
                - p.offset
                - p.pitch * np.arange(p.n_wires)
            )
            found = p.nearest(z, y)
            assert (found[found >= 0] == distance.argmin(axis=1)[found >= 0]).all()
            assert (distance.min(axis=1)[found < 0] >= p.pitch / 2).all()
            assert (found >= 0).mean() > 0.99


def test_unknown_tpc_and_geometry_are_explained():
    with pytest.raises(geometry.GeometryError, match="no TPC 12"):
        PDSP.face(12)
    with pytest.raises(geometry.GeometryError, match=r"larsoft:<wire dump"):
        geometry.load("icarus")


def test_digest_follows_the_numbers():
    other = {tpc: PDSP.face(tpc) for tpc in (1, 2)}
    assert geometry.build("pdsp", other).digest == geometry.build("else", other).digest != PDSP.digest


VOXEL = (8 * 0.7825, 8.0, 8.0)


def test_shifts_into_the_joined_frame():
    origin = PDSP.face(1).r_min
    assert shift(PDSP.face(5), VOXEL, origin).voxels == (0, 0, 290)
    assert shift(PDSP.face(9), VOXEL, origin).voxels == (0, 0, 580)
    assert shift(PDSP.face(9), VOXEL, origin).residual_mm == (0, 0, 0)
    mirrored = shift(PDSP.face(2), VOXEL, origin)
    assert mirrored.voxels[0] == 1146
    assert mirrored.residual_mm[0] == pytest.approx(-0.04, abs=0.005)


@pytest.mark.parametrize("tpc", [1, 2, 6, 9])
def test_joined_voxel_holds_the_point_it_came_from(tpc):
    """To the residual: a point of the detector and its local voxel, once placed, agree in the common frame."""
    rng = np.random.default_rng(tpc)
    face, origin = PDSP.face(tpc), np.array(PDSP.face(1).r_min)
    points = rng.uniform(face.r_min, face.r_max, (2000, 3))
    local, keep = PDSP.to_local(tpc, points, -250.0)
    assert keep.all()
    by = shift(face, VOXEL, origin)
    placed = place(np.floor(local / VOXEL).astype(int), face, by)
    offset = (points - origin - by.residual_mm * np.array([-1, 1, 1])) / VOXEL - placed
    assert (offset > -0.01).all()
    assert (offset < 1.01).all()
    legacy = place(np.floor(local / VOXEL).astype(int), face, by, legacy_mirror=True)
    assert (legacy[:, 0] - placed[:, 0] == (1 if face.face == 1 else 0)).all()
