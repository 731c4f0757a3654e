"""Segments, particles, error distances and charge against brute force and closed forms."""

import numpy as np
import pytest

from hpcreco.experiments.protodune.analysis import charge, detail, distances, particles, segments
from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS
from hpcreco.experiments.protodune.analysis.detail import Detail, EventTruth, Grid
from hpcreco.experiments.protodune.analysis.sample import ScoredEvent

GRID = Grid((750, 748, 288), (8, 4, 4), (6.26, 8.0, 8.0))


@pytest.fixture
def event():
    """Two particles in clouds of ghosts, one more true cell that is no candidate: event, coords, truth."""
    rng = np.random.default_rng(4)
    lines = []
    for k, start in enumerate(([100, 100, 20], [300, 500, 200])):
        s = np.arange(60)[:, None]
        lines.append(np.array(start) + s * np.array([[0, 1, 1], [2, 1, 0]][k]))
    cells = np.concatenate(lines)
    ghosts = np.concatenate([line + rng.integers(2, 6, line.shape) for line in lines for _ in range(3)])
    ghosts = np.array(sorted({tuple(g) for g in ghosts} - {tuple(c) for c in cells}))
    coords = np.concatenate([cells[:-1], ghosts]).astype(np.int32)
    is_true = np.arange(len(coords)) < len(cells) - 1
    order = np.lexsort(coords.T[::-1])
    coords, is_true = coords[order], is_true[order]
    scores = np.where(is_true, rng.uniform(0.2, 1, len(coords)), rng.uniform(0, 0.7, len(coords)))
    value = np.full(len(cells), 9000.0, np.float32)
    labels = np.where(is_true, 9000.0, 0)
    ids = np.repeat([7, 8], 60).astype(np.int32)
    table = {"track_id": np.array([8, 7]), "beam": np.array([1, 0]), "kinetic_energy": np.array([1000.0, 50])}
    truth = EventTruth(cells.astype(np.int32), value, ids, np.repeat([13, 211], 60).astype(np.int32), table)
    made = ScoredEvent("e:0", scores, np.zeros((len(coords), 3)), is_true, labels, 1, 9000.0)
    return made, coords, truth


def test_segments_hold_every_voxel_once(event):
    made, coords, truth = event
    found = detail.of_scores(made, coords, truth, GRID).arrays
    assert found["segment_true"].shape == (1, 2, 4, 51)
    assert found["segment_true"].sum() == made.truth.sum()
    assert found["segment_ghost"].sum() == (~made.truth).sum()
    assert found["segment_missed"].sum() == 1
    lower = coords[:, 1] < 374
    second = (coords[:, 2] >= 72) & (coords[:, 2] < 144)
    assert found["segment_true"][0, 0, 1].sum() == (made.truth & lower & second).sum()
    assert segments.count((750, 748, 868), (8, 4, 4)) == (2, 13)
    assert segments.count((750, 748, 864), (8, 4, 4)) == (2, 12)


@pytest.mark.parametrize("index", [0, 17, 35, 49])
def test_distances_at_any_threshold_are_those_of_brute_force(event, index):
    made, coords, truth = event
    called = made.scores > THRESHOLDS[index]
    found = detail.of_scores(made, coords, truth, GRID).arrays
    wrong = {
        "to_ghost": (made.truth & ~called, coords[~made.truth]),
        "to_true": (~made.truth & called, truth.coords),
    }
    for (name, (chosen, others)), side in zip(
        wrong.items(), (distances.called_ghost, distances.called_true), strict=True
    ):
        away = np.linalg.norm(coords[chosen][:, None] - others[None], axis=2).min(1)
        counts = side(found[name], index)
        assert counts.sum() == chosen.sum()
        for k, edge in enumerate(distances.EDGES):
            upper = distances.EDGES[k + 1] if k + 1 < len(distances.EDGES) else np.inf
            assert counts[k] == ((away >= edge) & (away < upper)).sum()
        if chosen.any():
            assert distances.share_near(counts) == pytest.approx((away < 2).mean())


def test_particles_have_their_own_candidates(event):
    made, coords, truth = event
    table = Detail(detail.of_particles(made, coords, truth, GRID)).table("particle")
    assert table["track_id"].tolist() == [7, 8]
    assert table["pdg"].tolist() == [13, 211]
    assert table["origin"].tolist() == [particles.COSMIC, particles.BEAM]
    assert table["kinetic_mev"].tolist() == [50, 1000]
    assert table["true"].tolist() == [60, 60]
    near = np.linalg.norm(coords[:, None] - truth.coords[None], axis=2).argmin(1)
    first = (truth.track_id[near] == 7).sum()
    assert table["candidates"].tolist() == [first, len(coords) - first]
    assert table["hist_true"].sum(1).tolist() == [60, 59]
    assert table["candidates"].tolist() == (table["hist_true"].sum(1) + table["hist_ghost"].sum(1)).tolist()


@pytest.mark.parametrize(("theta", "phi"), [(90, 45), (30, 120), (150, 10), (90, 0), (0.0, 0), (60, 179)])
def test_angles_of_a_line(theta, phi):
    t, p = np.radians([theta, phi])
    axis = np.array([np.cos(t), np.sin(t) * np.sin(p), np.sin(t) * np.cos(p)])
    for sign in (1, -1):
        points = np.linspace(0, sign * 200, 41)[:, None] * axis + [5, 6, 7]
        shape = particles.shape(points)
        assert min(shape.theta, 180 - shape.theta) == pytest.approx(min(theta, 180 - theta), abs=1e-5)
        if theta:
            assert shape.theta == pytest.approx(theta, abs=1e-5)
            assert shape.phi == pytest.approx(phi, abs=1e-5)
        assert shape.length == pytest.approx(200)
        assert shape.linearity == pytest.approx(1)


def test_small_particles_and_events_without_truth_say_nothing(event):
    made, coords, truth = event
    few = EventTruth(truth.coords[:19], truth.value[:19], truth.track_id[:19], truth.pdg[:19])
    table = Detail(detail.of_particles(made, coords, few, GRID)).table("particle")
    assert len(table["track_id"]) == 0
    assert detail.of_scores(made, coords, None, GRID).empty
    none = EventTruth(np.zeros((0, 3), np.int32), np.zeros(0))
    assert not detail.of_scores(made, coords, none, GRID).empty


def test_details_of_two_files_add_up(event):
    made, coords, truth = event
    wide = Grid((750, 748, 868), (8, 4, 4), (6.26, 8.0, 8.0))
    one, other = detail.of_scores(made, coords, truth, GRID), detail.of_scores(made, coords, truth, wide)
    other.shift_events(1)
    one.merge(other)
    assert one.arrays["segment_true"].shape == (2, 2, 13, 51)
    assert one.arrays["segment_true"].sum() == 2 * made.truth.sum()
    assert one.arrays["particle_event"].tolist() == [0, 0, 1, 1]
    assert one.arrays["to_true"].sum() == 2 * (~made.truth).sum()


def test_residuals_of_a_known_distribution():
    rng = np.random.default_rng(0)
    true = rng.uniform(5e3, 5e4, 200_000)
    r = charge.residuals(true * (1 + rng.normal(-0.1, 0.2, len(true))), true)
    direct = charge.summarise(r)
    counted = charge.from_sums(len(r), r.sum(), (r**2).sum(), charge.by_charge(true, r).sum(0))
    for found in (direct, counted):
        assert found.bias == pytest.approx(-0.1, abs=2e-3)
        assert found.rms == pytest.approx(0.2, abs=2e-3)
        assert found.half_width_68 == pytest.approx(0.2 * 0.9945, abs=3e-3)
        assert found.median == pytest.approx(-0.1, abs=3e-3)
    assert np.isnan(charge.summarise(np.zeros(0)).bias)
    assert len(charge.residuals(np.ones(3), np.array([0.0, 1, 2]))) == 2


def test_charge_that_is_right_up_to_a_factor(event):
    made, coords, truth = event
    measured = np.where(made.truth, 0.8 * 9000, 100.0).astype(np.float32)
    labels = np.where(made.truth, 9000.0, 0)
    found = detail.of_charges(measured, coords, labels, made.truth, truth, GRID).arrays
    assert found["charge_measured"][0] == pytest.approx(0.8 * 9000 * 119, rel=1e-6)
    assert found["charge_true"][0] == 9000 * 120
    assert found["charge_sum"][0] / found["charge_voxels"][0] == pytest.approx(-0.2, abs=1e-6)
    ratio = found["measured_charge"] / found["measured_true"]
    assert ratio == pytest.approx([0.8, 0.8 * 59 / 60], rel=1e-6)
    pieces = found["piece_measured"] / found["piece_true"]
    assert np.median(pieces) == pytest.approx(0.8, rel=1e-6)
    length = np.linalg.norm(np.array([0, 59, 59]) * GRID.cell_mm)
    own = found["piece_track_id"] == 7
    assert found["piece_true"][own].mean() == pytest.approx(9000 * 59 / length, rel=0.05)
    unmasked = detail.of_charges(measured, coords, labels, np.ones(len(coords), bool), truth, GRID).arrays
    assert unmasked["charge_measured"][0] > found["charge_measured"][0]
