"""Tiling against a literal reading of its definition, and the invariants that follow from it."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.geometry import Face, WirePlane
from hpcreco.experiments.protodune.tiling.tiler import Tiler, TilingError, TilingOptions

N_CHANNELS, N_TICKS = 40, 8
FINE = TilingOptions(downsample=(1, 1, 1))


def small_face(seed=0, angles=(-35.7, 0.0, 35.7), n_y=22, n_z=16, wires=(9, 8, 9)):
    """Three planes over a few pixels, too few wires to cover all of it, and some channels with two strips."""
    rng = np.random.default_rng(seed)
    planes, first = [], 0
    for name, angle, n in zip("UXV", angles, wires, strict=True):
        e_z, e_y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = sorted(e_z * z + e_y * y for z in (0, n_z) for y in (0, n_y))
        pitch = 2.3345 + 0.1 * rng.random() if angle else 2.0817
        offset = corners[0] + (0.9 if angle else 0.55) * pitch + 0.0137
        channels = first + np.arange(n, dtype=np.int32)
        if angle:
            channels[-2:] = channels[:2]  # wrapped wires
        planes.append(WirePlane(name, angle, pitch, offset, channels, (e_z, e_y)))
        first += n
    return Face(1, 0, 2, (0.0, 0.0, 0.0), (100.0, 2.0 * n_y, 2.0 * n_z), tuple(planes))


def clip(polygon, normal, limit):
    """The part of a convex polygon where normal . r <= limit."""
    kept = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        da, db = np.dot(normal, a) - limit, np.dot(normal, b) - limit
        if da <= 0:
            kept.append(a)
        if da * db < 0:
            kept.append(a + (b - a) * (da / (da - db)))
    return kept


def area(polygon):
    return 0.5 * abs(
        sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True))
    )


def clipped_shares(face):
    """{plane: {pixel (z, y): {wire: area}}} of all pixels, by clipping the unit square with every strip."""
    n_y, n_z = face.pixels
    found = []
    for plane in face.planes:
        e = np.array(plane.direction)
        table = {}
        for z in range(n_z):
            for y in range(n_y):
                square = [np.array(c, float) for c in ((z, y), (z + 1, y), (z + 1, y + 1), (z, y + 1))]
                parts = {}
                for k in range(plane.n_wires):
                    low, high = plane.offset + (k - 0.5) * plane.pitch, plane.offset + (k + 0.5) * plane.pitch
                    piece = clip(square, e, high)
                    piece = clip(piece, -e, -low) if piece else []
                    if len(piece) > 2 and area(piece) > 1e-12:
                        parts[k] = area(piece)
                table[z, y] = parts
        found.append(table)
    return found


def literal(face, shares, samples, options, n_ticks=N_TICKS):
    """The definition of tiling, pixel by pixel: {coarse cell: features} and the charge lost per plane."""
    charge = {(int(t), int(c)): float(np.float32(q)) for t, c, q in zip(*samples, strict=True)}
    if options.clip_negative:
        charge = {key: max(q, 0.0) for key, q in charge.items()}
    charge = {key: (0.0 if key[1] in options.dead_channels else q) for key, q in charge.items()}
    cells, lost = {}, np.zeros(3)
    for t in range(n_ticks):
        candidates = [
            pixel
            for pixel in shares[0]
            if all(
                active(plane, table[pixel], t, charge, options)
                for plane, table in zip(face.planes, shares, strict=True)
            )
        ]
        for p, (plane, table) in enumerate(zip(face.planes, shares, strict=True)):
            weight = {}
            for pixel in candidates:
                for k, a in table[pixel].items():
                    c = int(plane.channels[k])
                    weight[c] = weight.get(c, 0.0) + round(a, 3)
            for pixel in candidates:
                cell = tuple(i // d for i, d in zip((t, pixel[1], pixel[0]), options.downsample, strict=True))
                features = cells.setdefault(cell, np.zeros(3))
                for k, a in table[pixel].items():
                    c = int(plane.channels[k])
                    features[p] += charge.get((t, c), 0.0) * round(a, 3) / weight[c] if weight[c] > 0 else 0.0
            for c in set(plane.channels.tolist()):
                if charge.get((t, c), 0.0) > options.threshold and not weight.get(c, 0.0) > 0:
                    lost[p] += charge[t, c]
    return cells, lost


def active(plane, parts, t, charge, options):
    """Is a pixel, whose shares in the wires of a plane are `parts`, active in that plane?"""

    def contact(share):
        return round(share, 3) > 0 if options.legacy_rounding else share > 1e-9

    for k, share in parts.items():
        c = int(plane.channels[k])
        if contact(share) and (charge.get((t, c), 0.0) > options.threshold or c in options.dead_channels):
            return True
    return options.active_none and contact(1 - sum(parts.values()))


def random_samples(seed, occupancy=0.25, n_ticks=N_TICKS, n_channels=N_CHANNELS):
    """Charges of all kinds: large, negative, below threshold, exactly zero."""
    rng = np.random.default_rng(seed)
    tick, channel = np.nonzero(rng.random((n_ticks, n_channels)) < occupancy)
    value = rng.choice([1e4, -300.0, 5e-4, 0.0], size=len(tick), p=[0.7, 0.1, 0.1, 0.1]) * rng.random(
        len(tick)
    )
    return tick.astype(np.uint16), channel.astype(np.uint16), value.astype(np.float32)


def tiler(face, options=FINE, **more):
    return Tiler(face, options, n_ticks=more.pop("n_ticks", N_TICKS), n_channels=N_CHANNELS, **more)


def as_cells(tiles):
    return {tuple(c): f for c, f in zip(tiles.coords.tolist(), tiles.features.astype(float), strict=True)}


def same(a, b):
    return (
        np.array_equal(a.coords, b.coords)
        and np.array_equal(a.features, b.features)
        and np.array_equal(a.lost, b.lost)
        and a.pixels == b.pixels
    )


FACE = small_face()
SHARES = clipped_shares(FACE)
NO_COLLECTION = small_face(1, angles=(-40.0, 12.0, 33.0), n_y=14, n_z=10)

CASES = {
    "fine": FINE,
    "coarse": TilingOptions(downsample=(4, 4, 4)),
    "uneven": TilingOptions(downsample=(2, 3, 5)),
    "no none": replace(FINE, active_none=False),
    "clipped": replace(FINE, clip_negative=True),
    "legacy": replace(FINE, legacy_rounding=True),
    "dead": TilingOptions(downsample=(2, 2, 2), dead_channels=(0, 3, 10, 20, 21)),
    "threshold": replace(FINE, threshold=4000.0),
}


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition(case, engine):
    options = CASES[case]
    samples = random_samples(11, occupancy=0.4)
    expected, lost = literal(FACE, SHARES, samples, options)
    tiles = tiler(FACE, options, engine=engine).tile(*samples)
    found = as_cells(tiles)
    assert found.keys() == expected.keys()
    assert len(found) > 10
    for cell, features in expected.items():
        np.testing.assert_allclose(found[cell], features, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(tiles.lost, lost, rtol=1e-9)


def test_three_tilted_planes_equal_the_definition():
    shares, samples = clipped_shares(NO_COLLECTION), random_samples(5)
    expected, lost = literal(NO_COLLECTION, shares, samples, FINE)
    for engine in ("numba", "numpy"):
        tiles = tiler(NO_COLLECTION, engine=engine).tile(*samples)
        found = as_cells(tiles)
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(
            [found[c] for c in expected], list(expected.values()), rtol=1e-5, atol=1e-3
        )
        np.testing.assert_allclose(tiles.lost, lost, rtol=1e-9)


def test_rows_are_sorted_unique_and_inside_the_grid():
    t = tiler(FACE, CASES["uneven"])
    coords = t.tile(*random_samples(2)).coords
    assert t.shape == (4, 8, 4)
    assert coords.dtype == np.int32
    assert (coords >= 0).all()
    assert (coords < t.shape).all()
    key = np.ravel_multi_index(coords.T, t.shape)
    assert (np.diff(key) > 0).all()


@pytest.mark.parametrize("case", CASES)
def test_threads_and_engines_give_the_same_bits(case):
    for seed in range(3):
        samples = random_samples(seed)
        one = tiler(FACE, CASES[case]).tile(*samples)
        assert same(one, tiler(FACE, CASES[case], threads=3).tile(*samples))
        assert same(one, tiler(FACE, CASES[case], engine="numpy").tile(*samples))


def test_order_of_the_samples_does_not_matter():
    samples = random_samples(3)
    order = np.random.default_rng(0).permutation(len(samples[0]))
    assert same(tiler(FACE).tile(*samples), tiler(FACE).tile(*(column[order] for column in samples)))


@pytest.mark.parametrize("downsample", [(1, 1, 1), (4, 4, 4)])
def test_charge_is_conserved(downsample):
    """Features of a plane sum to the charge of the channels that some candidate touches; only the lost is missing."""
    tick, channel, value = random_samples(7)
    value = np.abs(value) + 1.0
    tiles = tiler(FACE, TilingOptions(downsample=downsample)).tile(tick, channel, value)
    for p, plane in enumerate(FACE.planes):
        mine = np.isin(channel, plane.channels)
        total = value[mine].sum(dtype=float)
        assert tiles.features[:, p].sum(dtype=float) + tiles.lost[p] == pytest.approx(total, rel=1e-5)


def test_true_voxels_are_candidates():
    """Noiseless charge on the nearest strip of each plane lights the pixel it came from."""
    rng = np.random.default_rng(4)
    face = geometry.load("pdsp").face(2)
    points = rng.uniform(0, (2300, 5984), (300, 2))
    tick = rng.integers(0, 8, len(points))
    samples = []
    for plane in face.planes:
        wire = plane.nearest(points[:, 0], points[:, 1])
        samples.append(np.stack([tick[wire >= 0], plane.channels[wire[wire >= 0]]]))
    at = np.unique(np.concatenate(samples, axis=1), axis=1)
    truth = np.unique(np.stack([tick, points[:, 1] // 2, points[:, 0] // 2], 1).astype(int), axis=0)
    charge = np.full(at.shape[1], 100.0)
    for options in (FINE, TilingOptions()):
        coords = Tiler(face, options, n_ticks=8).tile(at[0], at[1], charge).coords
        wanted = set(map(tuple, (truth // options.downsample).tolist()))
        assert wanted <= set(map(tuple, coords.tolist()))


def test_more_charge_or_a_lower_threshold_never_removes_a_candidate():
    tick, channel, value = random_samples(9, occupancy=0.5)
    high = set(as_cells(tiler(FACE, CASES["threshold"]).tile(tick, channel, value)))
    more = set(as_cells(tiler(FACE, CASES["threshold"]).tile(tick, channel, value + 2000)))
    low = set(as_cells(tiler(FACE).tile(tick, channel, value)))
    assert high < low
    assert high < more


def test_scaling_charge_scales_features():
    tick, channel, value = random_samples(13)
    value = np.where(value == 0, 0, np.abs(value) + 1)
    one, four = (tiler(FACE).tile(tick, channel, k * value) for k in (1, 4))
    assert np.array_equal(one.coords, four.coords)
    np.testing.assert_array_equal(4 * one.features, four.features)


def test_an_empty_slice_has_no_candidate():
    empty = np.zeros(0, int)
    for engine in ("numba", "numpy"):
        tiles = tiler(FACE, engine=engine).tile(empty, empty, empty.astype(float))
        assert (tiles.coords.shape, tiles.features.shape, tiles.pixels) == ((0, 3), (0, 3), 0)


def test_pdsp_has_no_pixel_without_a_wire_in_all_planes():
    pdsp = geometry.load("pdsp")
    for tpc in (1, 2):
        assert not Tiler(pdsp.face(tpc)).grid.glows


def test_a_pixel_without_any_wire_is_lit_in_every_slice():
    bare = small_face(wires=(3, 3, 3))
    shares, samples = clipped_shares(bare), random_samples(1, n_channels=9)
    expected, _ = literal(bare, shares, samples, FINE)
    for engine in ("numba", "numpy"):
        tiles = tiler(bare, engine=engine)
        assert tiles.grid.glows
        assert as_cells(tiles.tile(*samples)).keys() == expected.keys()
    assert {cell[0] for cell in expected} == set(range(N_TICKS))


def test_one_lit_wire_per_plane_gives_the_intersection_of_all_its_strips():
    face = geometry.load("pdsp").face(2)
    t = Tiler(face, replace(FINE, active_none=False), n_ticks=1)
    v, x, u = face.planes
    z, y = np.meshgrid(np.arange(1150), np.arange(2992), indexing="ij")
    n_found = 0
    for point in ((300.0, 700.0), (1900.0, 5500.0), (1000.0, 3000.0)):
        channels = [int(plane.channels[plane.nearest(*point)]) for plane in (v, x, u)]
        tiles = t.tile(np.zeros(3, int), np.array(channels), np.full(3, 10.0))
        mask = np.ones(z.shape, bool)
        for plane, table_channel in zip((v, x, u), channels, strict=True):
            touched = np.zeros(z.shape, bool)
            for wire in np.flatnonzero(plane.channels == table_channel):
                low, high = (
                    plane.offset + (wire - 0.5) * plane.pitch,
                    plane.offset + (wire + 0.5) * plane.pitch,
                )
                e_z, e_y = plane.direction
                corner = e_z * z + e_y * y + min(0, e_y)
                touched |= (corner < high - 1e-6) & (corner + e_z + abs(e_y) > low + 1e-6)
            mask &= touched
        assert np.array_equal(np.argwhere(mask.T), tiles.coords[:, 1:])
        assert mask[int(point[0] // 2), int(point[1] // 2)]
        n_found += int(mask.sum())
    assert n_found > 20


def test_dead_channels_only_add_candidates():
    samples = random_samples(21, occupancy=0.15)
    cells = [set(as_cells(tiler(FACE, replace(FINE, dead_channels=dead)).tile(*samples)))
             for dead in ((), (2,), (2, 12), (2, 12, 22))]  # fmt: skip
    assert all(fewer <= more for fewer, more in pairwise(cells))
    assert len(cells[-1]) > len(cells[0])


def test_a_dead_plane_leaves_a_coincidence_of_two():
    tick, channel, value = random_samples(22)
    u, _, v = FACE.planes
    keep = ~np.isin(channel, FACE.planes[1].channels)
    dead = tuple(map(int, FACE.planes[1].channels))
    tiles = tiler(FACE, replace(FINE, dead_channels=dead)).tile(tick, channel, value)
    lit = {
        (t, c) for t, c, q in zip(tick.tolist(), channel.tolist(), value.tolist(), strict=True) if q > 1e-3
    }
    expected = set()
    for t in range(N_TICKS):
        for pixel in SHARES[0]:
            if all(
                1 - sum(SHARES[p][pixel].values()) > 1e-9
                or any((t, int(plane.channels[k])) in lit for k, a in SHARES[p][pixel].items() if a > 1e-9)
                for p, plane in ((0, u), (2, v))
            ):
                expected.add((t, pixel[1], pixel[0]))
    assert set(as_cells(tiles)) == expected
    assert (tiles.features[:, 1] == 0).all()
    assert keep.any()


def test_features_are_finite_whatever_the_charge():
    tick, channel, value = random_samples(23)
    for scale in (1e-30, 1e-3, 1e25):
        tiles = tiler(FACE).tile(tick, channel, value * scale)
        assert np.isfinite(tiles.features).all()


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (([8], [0], [1.0]), "tick 8..8 outside"),
        (([0], [40], [1.0]), "channel 40..40 outside"),
        (([0], [0], [np.nan]), "not finite"),
        (([1, 1], [3, 3], [1.0, 2.0]), "two samples"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples, says):
    with pytest.raises(TilingError, match=says):
        tiler(FACE).tile(*map(np.array, samples))


def test_downsampling_that_does_not_divide_the_ticks_is_refused():
    with pytest.raises(TilingError, match="must divide the 8 ticks"):
        tiler(FACE, TilingOptions(downsample=(3, 1, 1)))
    with pytest.raises(geometry.GeometryError, match="dead channels"):
        tiler(FACE, TilingOptions(downsample=(1, 1, 1), dead_channels=(40,)))


def test_without_numba_the_result_is_the_same(tmp_path):
    """numba blocked in a fresh interpreter: the same rows, to the bit."""
    samples = random_samples(31)
    np.savez(tmp_path / "samples.npz", *samples)
    script = """
import sys
sys.modules["numba"] = None
import numpy as np
from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.tiling.tiler import Tiler
with np.load(sys.argv[1]) as file:
    samples = [file[name] for name in file.files]
tiler = Tiler(geometry.load().face(2), n_ticks=8)
assert tiler.engine == "numpy"
tiles = tiler.tile(*samples)
np.savez(sys.argv[2], coords=tiles.coords, features=tiles.features)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "samples.npz"), str(tmp_path / "tiles.npz")]
    subprocess.run(command, check=True, timeout=400)
    tiles = Tiler(geometry.load().face(2), n_ticks=8).tile(*samples)
    with np.load(tmp_path / "tiles.npz") as without:
        np.testing.assert_array_equal(without["coords"], tiles.coords)
        np.testing.assert_array_equal(without["features"], tiles.features)
