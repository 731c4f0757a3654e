import numpy as np

from hpcreco.experiments.protodune import labels


def fine_truth(seed=0, n=400):
    rng = np.random.default_rng(seed)
    coords = rng.integers(0, 24, (n, 3)).astype(np.int32)
    return coords, rng.random((n, 2)).astype(np.float32), rng.integers(1, 5, n), rng.choice([11, 13], n)


def test_cells_sum_their_fine_voxels():
    coords, values, _, _ = fine_truth()
    truth = labels.coarse(coords, values, (8, 4, 4))
    expected = {}
    for c, v in zip(coords, values, strict=True):
        key = tuple(c // (8, 4, 4))
        expected[key] = expected.get(key, 0) + v.astype(float)
    assert [tuple(c) for c in truth.coords] == sorted(expected)
    np.testing.assert_allclose(truth.values, [expected[tuple(c)] for c in truth.coords], rtol=1e-6)


def test_without_downsampling_unique_voxels_are_only_sorted():
    coords, values, track, pdg = fine_truth()
    _, first = np.unique(coords, axis=0, return_index=True)
    truth = labels.coarse(
        coords[first[::-1]], values[first[::-1]], (1, 1, 1), track[first[::-1]], pdg[first[::-1]]
    )
    np.testing.assert_array_equal(truth.coords, coords[first])
    np.testing.assert_array_equal(truth.values, values[first])
    np.testing.assert_array_equal(truth.track_id, track[first])
    np.testing.assert_array_equal(truth.pdg, pdg[first])


def test_a_cell_belongs_to_the_track_with_most_of_it():
    coords, values, track, _ = fine_truth(1)
    pdg = np.where(track > 2, 11, 13)
    truth = labels.coarse(coords, values, (8, 8, 8), track, pdg)
    for cell, owner, code in zip(truth.coords, truth.track_id, truth.pdg, strict=True):
        here = (coords // 8 == cell).all(axis=1)
        sums = [values[here & (track == t), 0].sum(dtype=float) for t in range(1, 5)]
        assert owner == 1 + np.argmax(sums)
        assert code == (11 if owner > 2 else 13)


def test_labels_and_missed_cells_complement_each_other():
    coords, values, _, _ = fine_truth(2)
    truth = labels.coarse(coords, values, (8, 4, 4))
    candidates = np.array([[0, 0, 0], [1, 2, 3], [2, 5, 5], [9, 9, 9]], np.int32)
    found = labels.label(candidates, truth)
    known = {tuple(c): v[0] for c, v in zip(truth.coords, truth.values, strict=True)}
    assert found.shape == (4, 1)
    assert found[:, 0].tolist() == [known.get(tuple(c), 0) for c in candidates]
    missed = labels.missed(truth, candidates)
    assert {tuple(c) for c in truth.coords[missed]} == set(known) - {tuple(c) for c in candidates}


def test_empty_truth_and_empty_candidates():
    empty = labels.coarse(np.zeros((0, 3), np.int32), np.zeros((0, 1)), (8, 4, 4), np.zeros(0), np.zeros(0))
    assert empty.coords.shape == (0, 3)
    assert empty.track_id.shape == (0,)
    assert labels.label(np.array([[1, 2, 3]]), empty).tolist() == [[0]]
    coords, values, _, _ = fine_truth()
    truth = labels.coarse(coords, values, (8, 4, 4))
    assert labels.missed(truth, np.zeros((0, 3), np.int32)).all()
    assert labels.label(np.zeros((0, 3), np.int32), truth).shape == (0, 1)
