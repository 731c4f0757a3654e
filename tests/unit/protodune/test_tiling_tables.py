"""The tables and the exact sums that the compiled tiling is made of, against sums over pixels."""

import math
from fractions import Fraction

import numpy as np
import pytest

from hpcreco.compiling import compiled
from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.overlap import SHARE_UNIT
from hpcreco.experiments.protodune.tiling import cuts, exact, layout, scratch
from hpcreco.experiments.protodune.tiling.tiler import Tiler, TilingOptions
from tests.unit.protodune.test_tiling import FACE, NO_COLLECTION, random_samples, same, small_face, tiler

PDSP = geometry.load("pdsp")
FACES = {
    "small": FACE,
    "three tilted": NO_COLLECTION,
    "two": small_face(3, wires=(4, 12, 6)),
    "pdsp": PDSP.face(1),
}


@compiled()
def weigh(plan, made, runs, n, weight):
    cuts.weigh(plan, made, runs, n, weight)


@compiled()
def share_out(plan, made, dy, runs, n, where, ratio, sums):
    cuts.share_out(plan, made, dy, runs, n, where, ratio, sums)


@compiled()
def units_of(size, largest):
    return exact.units(size, largest)


@compiled()
def room_for(rows, n):
    return scratch.room(rows, n)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", FACES)
def test_span_ends_rise_or_fall_along_z_and_never_fall_with_the_strip(name, legacy):
    """So the outline of a group over a range of columns is seen at its two ends."""
    plan = layout.build(FACES[name], 2560, legacy_rounding=legacy)
    for p in range(len(plan.span)):
        if p == plan.guide:
            continue
        ends = plan.span[p].astype(int)
        along_z = np.diff(ends, axis=1)
        assert (along_z >= 0).all() or (along_z <= 0).all()
        assert (np.diff(ends, axis=0) >= 0).all()
        assert ends[:, :, 1].max() == plan.strip.shape[2]


@pytest.mark.parametrize("face", [FACE, NO_COLLECTION])
def test_cuts_give_the_shares_of_any_run(face):
    plan = layout.build(face, 40)
    made = cuts.cuts(plan)
    n_planes, n_z, n_y = plan.strip.shape
    rng = np.random.default_rng(0)
    runs = np.stack(
        [rng.integers(0, n_z, 60), *np.sort(rng.integers(0, n_y + 1, (2, 60)), axis=0)], 1
    ).astype(np.int32)
    runs = runs[runs[:, 1] < runs[:, 2]]
    weight = np.zeros(plan.channel.shape, np.int64)
    weigh(plan, made, runs, len(runs), weight)
    expected = np.zeros_like(weight)
    for z, low, high in runs:
        for p in range(n_planes):
            np.add.at(expected[p], plan.strip[p, z, low:high], plan.share[p, z, low:high])
            np.add.at(expected[p], plan.strip[p, z, low:high] + 1, SHARE_UNIT - plan.share[p, z, low:high])
    assert np.array_equal(weight, expected)
    ratio = rng.integers(-9, 9, weight.shape)
    sums, dy = np.zeros((n_planes, 1), np.int64), 5
    where = np.zeros(len(runs) * n_y, np.int64)  # all into one cell
    share_out(plan, made, np.uint64(dy), runs, len(runs), where, ratio, sums)
    assert np.array_equal(sums[:, 0], (ratio * expected).sum(axis=1))


def test_a_crowded_slice_of_the_detector_gives_the_same_bits_in_both_engines():
    """Groups wider than the columns looked at together, hundreds of combinations, and lone strips."""
    rng = np.random.default_rng(1)
    planes = [
        np.sort(np.concatenate([rng.choice(p.channels, 160, replace=False), p.channels[200:215]]))
        for p in PDSP.face(1).planes
    ]
    channel = np.unique(np.concatenate(planes))
    tick = np.zeros(len(channel), int)
    value = rng.normal(2000, 3000, len(channel))
    tilers = [Tiler(PDSP.face(1), n_ticks=8, engine=engine) for engine in ("numba", "numpy")]
    one, other = (t.tile(tick, channel, value) for t in tilers)
    assert same(one, other)
    assert one.pixels > 20_000


@pytest.mark.parametrize("downsample", [(1, 1, 1), (4, 4, 4), (3, 2, 2)])
@pytest.mark.parametrize("threads", [1, 2])
def test_slices_know_nothing_of_each_other(downsample, threads):
    """Nothing stays from slice to slice: same strips in a row, then silence, then the same again, then others."""
    rng = np.random.default_rng(6)
    many, few = np.flatnonzero(rng.random(40) < 0.6), np.arange(0, 40, 3)
    lit = [many, many, [], many, few, few, few, many, [], [], few, few]
    tick = np.repeat(np.arange(12), [len(channels) for channels in lit])
    channel = np.concatenate(lit).astype(int)
    options = TilingOptions(downsample=downsample)
    tilers = [
        Tiler(FACE, options, n_ticks=12, n_channels=40, threads=threads, engine=engine)
        for engine in ("numba", "numpy")
    ]
    for choice in ([900.0], [5e-4, 900.0, -40.0]):  # the second changes what is lit, too
        value = rng.choice(choice, len(tick)) * (1 + rng.random(len(tick)))
        one, other = (t.tile(tick, channel, value) for t in tilers)
        assert same(one, other)
        assert one.pixels > 50


def test_charge_is_conserved_far_beyond_the_precision_of_the_file():
    tick, channel, value = random_samples(17)
    tiles = tiler(FACE, TilingOptions(downsample=(4, 4, 4))).tile(tick, channel, value, exact=True)
    for p, plane in enumerate(FACE.planes):
        mine = np.isin(channel, plane.channels)
        missing = math.fsum(value[mine].astype(float)) - math.fsum(tiles.features[:, p]) - tiles.lost[p]
        assert abs(missing) <= abs(value[mine & (value <= 1e-3)].astype(float)).sum() + 1e-8


@pytest.mark.parametrize(
    ("size", "largest"), [(1.0, 1e-3), (3e5, 0.2), (1e-30, 1e-33), (1e30, 1e30), (0.0, 0.0)]
)
def test_units_are_a_power_of_two_that_leaves_room(size, largest):
    units = units_of(size, largest)
    assert math.frexp(units)[0] == 0.5
    assert size * units < 2**62
    assert largest * SHARE_UNIT * units < 2**53


def test_cell_charges_are_the_rounded_exact_sums_of_each_slice():
    rng = np.random.default_rng(2)
    tick, cell = np.sort(rng.integers(5, 8, 500)), rng.integers(0, 4, 500)
    units = 2.0**40
    charges = np.rint(rng.normal(0, 100, (500, 2)) * units) / units
    expected = np.zeros((4, 2))
    for t in (5, 6, 7):
        for c in range(4):
            for p in range(2):
                part = charges[(tick == t) & (cell == c), p]
                expected[c, p] += float(sum(map(Fraction, part.tolist()), Fraction(0)))
    assert np.array_equal(exact.cell_charges(tick, cell, charges, 4), expected)


@pytest.mark.parametrize("shape", [(7,), (3, 2)])
def test_room_keeps_the_rows(shape):
    rows = np.arange(np.prod(shape)).reshape(shape)
    larger = room_for(rows, 5)
    assert larger.shape == (10, *shape[1:])
    assert np.array_equal(larger[: len(rows)], rows)
