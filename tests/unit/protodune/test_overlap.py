import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry, overlap
from hpcreco.experiments.protodune.geometry import WirePlane

PDSP = geometry.load("pdsp")
TABLES = {tpc: overlap.tables(PDSP.face(tpc)) for tpc in (1, 2)}


def by_channel(plane, iz, iy):
    return {int(plane.channels[w]) if w >= 0 else None: s for w, s in overlap.shares(plane, iz, iy).items()}


@pytest.mark.parametrize(
    ("tpc", "pixel", "name", "expected"),
    [
        (2, (10, 20), "U", {340: 0.148, 339: 0.852}),
        (2, (10, 20), "V", {1545: 0.004, 1546: 0.996}),
        (2, (10, 20), "X", {1604: 1}),
        (1, (10, 20), "U", {346: 0.088, 347: 0.912}),
        (1, (10, 20), "V", {1539: 1}),
        (1, (10, 20), "X", {2084: 1}),
        (1, (0, 0), "V", {None: 0.122, 1547: 0.878}),
        (1, (0, 0), "X", {None: 0.103, 2080: 0.897}),
    ],
)
def test_golden_pixels(tpc, pixel, name, expected):
    plane = next(p for p in PDSP.face(tpc).planes if p.name == name)
    assert by_channel(plane, *pixel) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("tpc", [1, 2])
def test_pixels_without_a_wire(tpc):
    """U 5, V 1, X the columns 0 and 1149; the share of two-strip pixels is that of the specification."""
    none = {}
    for plane, table in zip(PDSP.face(tpc).planes, TABLES[tpc], strict=True):
        strip = table.strip.astype(int)
        below, above = (
            np.where(strip == 0, table.share, 0),
            np.where(strip >= plane.n_wires, 1000 - table.share, 0),
        )
        above = np.where(strip == plane.n_wires + 1, 1000, above)
        uncovered = below + above
        none[plane.name] = int((uncovered > 0).sum())
        two = ((table.share > 0) & (table.share < 1000)).mean()
        assert two == pytest.approx(0.579 if plane.name != "X" else 0.418, abs=0.001)
        if plane.name == "X":
            assert sorted(np.unique(np.nonzero(uncovered)[0])) == [0, 1149]
            assert uncovered.sum() / 1000 == pytest.approx(1199.8, abs=0.05)
    assert none == {"U": 5, "V": 1, "X": 5984}


def test_shares_equal_areas_counted_on_a_fine_lattice():
    rng = np.random.default_rng(3)
    step = (np.arange(200) + 0.5) / 200
    dz, dy = np.meshgrid(step, step, indexing="ij")
    for tpc in (1, 2):
        for plane in PDSP.face(tpc).planes:
            for _ in range(20):
                iz, iy = int(rng.integers(1150)), int(rng.integers(2992))
                wire = plane.nearest(2 * (iz + dz), 2 * (iy + dy))
                counted = {int(w): (wire == w).mean() for w in np.unique(wire)}
                exact = overlap.shares(plane, iz, iy)
                for w in set(counted) | set(exact):
                    assert exact.get(w, 0) == pytest.approx(counted.get(w, 0), abs=0.006)


def test_spans_list_exactly_the_pixels_that_touch_a_strip():
    """Spans come from runs; here every strip of some columns is asked of the closed form pixel by pixel."""
    for plane, table in zip(PDSP.face(1).planes, TABLES[1], strict=True):
        for column in (0, 1, 577, 1149):
            wire, share = overlap.lower_share(plane, np.full(2992, column), np.arange(2992))
            for strip in (0, 1, 5, 300, plane.n_wires, plane.n_wires + 1):
                low, high = table.span[column, strip]
                here = ((wire + 1 == strip) & (share > 1e-9)) | ((wire + 2 == strip) & (1 - share > 1e-9))
                assert np.flatnonzero(here).tolist() == list(range(low, high))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("tpc", [1, 2])
def test_strips_of_a_column_leave_no_gap(tpc, legacy):
    """What the kernels rely on: the strips that touch a column are consecutive, and neighbours abut or overlap in y."""
    for plane in PDSP.face(tpc).planes:
        span = overlap.PlaneTable(plane, PDSP.face(tpc).pixels, legacy).span.astype(int)
        touched = span[:, :, 1] > span[:, :, 0]
        assert (np.abs(np.diff(np.pad(touched, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1) == 2).all()
        both = touched[:, 1:] & touched[:, :-1]
        lower, upper = (span[:, 1:], span[:, :-1]) if plane.direction[1] < 0 else (span[:, :-1], span[:, 1:])
        assert (upper[:, :, 0] <= lower[:, :, 1])[both].all()


def test_legacy_rounding_only_shrinks_spans():
    exact, legacy = (
        TABLES[1][0],
        overlap.PlaneTable(PDSP.face(1).planes[0], (2992, 1150), legacy_rounding=True),
    )
    size, legacy_size = (t.span[:, :, 1].astype(int) - t.span[:, :, 0] for t in (exact, legacy))
    assert (legacy_size <= size).all()
    assert 0 < (size - legacy_size).sum() < 0.02 * size.sum()


def test_a_pitch_below_the_pixel_is_refused():
    plane = WirePlane("U", 35.7, 1.3, 0.0, np.arange(10, dtype=np.int32), (0.812084, 0.583541))
    with pytest.raises(geometry.GeometryError, match="three strips"):
        overlap.PlaneTable(plane, (10, 10))
