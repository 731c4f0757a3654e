"""Purity-efficiency curves against their definition and against scikit-learn; baselines against brute force."""

import numpy as np
import pytest

from hpcreco.experiments.protodune.analysis import baselines, curve
from hpcreco.experiments.protodune.analysis.cut import ELECTRONS_PER_MEV, CutError, Label, parse_cut
from hpcreco.experiments.protodune.analysis.sample import Sample, ScoredEvent


def scored(rng, n=4000, share=0.05):
    truth = rng.random(n) < share
    scores = np.where(truth, rng.beta(4, 2, n), rng.beta(1, 6, n)).astype(np.float32)
    scores[rng.random(n) < 0.1] = 0.0
    scores[rng.random(n) < 0.1] = np.float32(0.5)  # on a threshold exactly: not above it
    return scores, truth


def by_definition(scores, truth, missed=0, weights=None):
    weights = np.ones(len(scores)) if weights is None else weights
    purity, efficiency = [], []
    for k in range(50):
        called = scores.astype(float) > k / 50
        tp, p, t = weights[called & truth].sum(), weights[called].sum(), weights[truth].sum() + missed
        purity.append(tp / p if p else 1.0)
        efficiency.append(tp / t if t else 1.0)
    auc = sum((efficiency[k] - (efficiency[k + 1] if k < 49 else 0)) * purity[k] for k in range(50))
    return np.array(purity), np.array(efficiency), auc


@pytest.mark.parametrize("missed", [0, 37])
def test_curve_from_histograms_is_the_definition(missed):
    scores, truth = scored(np.random.default_rng(1))
    found = curve.curve_from_histograms(
        curve.histogram(scores[truth]), curve.histogram(scores[~truth]), missed=missed
    )
    purity, efficiency, auc = by_definition(scores, truth, missed)
    np.testing.assert_allclose(found.purity, purity, rtol=1e-12)
    np.testing.assert_allclose(found.efficiency, efficiency, rtol=1e-12)
    assert found.auc_pe == pytest.approx(auc, rel=1e-12)
    assert found.best == int(np.argmax(purity + efficiency))
    np.testing.assert_allclose(found.thresholds, curve.THRESHOLDS)


def test_histograms_of_parts_add_up_to_that_of_the_whole():
    scores, truth = scored(np.random.default_rng(2))
    parts = np.array_split(np.arange(len(scores)), 7)
    summed = sum(curve.histogram(scores[p][truth[p]]) for p in parts)
    np.testing.assert_array_equal(summed, curve.histogram(scores[truth]))


def test_points_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, of the dev extra")
    scores, truth = scored(np.random.default_rng(3))
    purity, efficiency, thresholds = metrics.precision_recall_curve(truth, scores.astype(float))
    found = curve.curve_from_histograms(curve.histogram(scores[truth]), curve.histogram(scores[~truth]))
    # scikit-learn calls score >= its threshold; the next larger score makes that our score > k/50
    at = np.searchsorted(thresholds, curve.THRESHOLDS, side="right")
    np.testing.assert_allclose(found.purity, purity[at])
    np.testing.assert_allclose(found.efficiency, efficiency[at])
    # the average precision is the same sum over all distinct scores instead of fifty thresholds
    assert found.auc_pe == pytest.approx(metrics.average_precision_score(truth, scores), abs=0.02)


def test_auc_is_not_the_roc_area():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, of the dev extra")
    rng = np.random.default_rng(4)
    truth = rng.random(50_000) < 0.03
    scores = np.where(truth, rng.normal(0.7, 0.1, len(truth)), rng.normal(0.5, 0.1, len(truth))).clip(0, 1)
    found = curve.curve_from_histograms(curve.histogram(scores[truth]), curve.histogram(scores[~truth]))
    assert metrics.roc_auc_score(truth, scores) > 0.9
    assert found.auc_pe < 0.6


def test_empty_denominators():
    none, some = np.zeros(51), np.eye(51)[30]
    nothing_true = curve.curve_from_histograms(none, some)
    assert (nothing_true.efficiency == 1).all()
    assert (nothing_true.purity[:30] == 0).all() and (nothing_true.purity[30:] == 1).all()
    assert np.isnan(nothing_true.break_even)
    nothing_called = curve.curve_from_histograms(np.eye(51)[0], np.eye(51)[0])
    assert (nothing_called.purity == 1).all() and nothing_called.auc_pe == 0
    weighted = curve.curve_from_histograms(none, some, weighted=True)
    assert (weighted.efficiency == 0).all() and (weighted.purity == 0).all()


def test_weighted_curve():
    rng = np.random.default_rng(5)
    scores, truth = scored(rng)
    charge = rng.exponential(5000, len(scores)) * np.where(truth, 1, 0.1)
    hists = [curve.histogram(scores[part], weights=charge[part]) for part in (truth, ~truth)]
    found = curve.curve_from_histograms(*hists, weighted=True)
    purity, efficiency, _ = by_definition(scores, truth, weights=charge)
    nothing_left = found.efficiency == 0
    assert not nothing_left.all()
    np.testing.assert_allclose(found.purity[~nothing_left], purity[~nothing_left])
    np.testing.assert_allclose(found.efficiency, efficiency)
    assert (found.purity[nothing_left] == 0).all()


def test_break_even_is_where_purity_equals_efficiency():
    scores, truth = scored(np.random.default_rng(6), n=200_000)
    found = curve.curve_from_histograms(curve.histogram(scores[truth]), curve.histogram(scores[~truth]))
    below = np.flatnonzero(found.purity < found.efficiency).max()
    points = np.concatenate([found.purity[below : below + 2], found.efficiency[below : below + 2]])
    assert points.min() <= found.break_even <= points.max()
    # as many voxels called as there are true ones: purity and efficiency are then the same number
    called = np.argsort(-scores.astype(float))[: truth.sum()]
    assert found.break_even == pytest.approx(truth[called].mean(), abs=0.02)
    mean = curve.mean_curve(found.purity[None], found.efficiency[None])
    assert mean.break_even == pytest.approx(found.break_even, abs=0.01)


def test_scores_without_information_break_even_at_the_share_of_true():
    # all scores in one bin: the curve jumps from (share, 1) to (1 by convention, 0); half way would be a fiction
    true, ghost = np.eye(51)[1] * 50, np.eye(51)[1] * 950
    assert curve.curve_from_histograms(true, ghost).break_even == pytest.approx(0.05)
    assert np.isnan(curve.mean_curve(*(a[None] for a in curve.purity_efficiency(true, ghost))).break_even)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="one bin more"):
        curve.curve_from_histograms(np.zeros(51), np.zeros(50))
    with pytest.raises(ValueError, match="one bin more"):
        curve.curve_from_histograms(np.zeros(50), np.zeros(50), curve.THRESHOLDS)


def test_mean_over_events_is_point_wise():
    rng = np.random.default_rng(7)
    events = [scored(rng, n) for n in (200, 5000, 900)]
    sample = Sample("Mu")
    for k, (scores, truth) in enumerate(events):
        sample.add(ScoredEvent(str(k), scores, np.zeros((len(scores), 0)), truth, missed=k))
    single = [by_definition(scores, truth) for scores, truth in events]
    mean = sample.mean()
    np.testing.assert_allclose(mean.purity, np.mean([p for p, _, _ in single], axis=0))
    np.testing.assert_allclose(mean.efficiency, np.mean([e for _, e, _ in single], axis=0))
    np.testing.assert_allclose(sample.event_auc(), [a for _, _, a in single])
    assert mean.auc_pe == pytest.approx(curve.area(mean.purity, mean.efficiency))
    pooled = sample.pooled()
    together = by_definition(np.concatenate([s for s, _ in events]), np.concatenate([t for _, t in events]))
    np.testing.assert_allclose(pooled.purity, together[0])
    counts = sample.counts()
    n_true = sum(t.sum() for _, t in events)
    assert (counts.events, counts.true, counts.ghost, counts.missed) == (3, n_true, 6100 - n_true, 3)
    assert counts.tiling_efficiency == pytest.approx(n_true / (n_true + 3))
    assert sample.kept(25).tolist() == [(s.astype(float) > 0.5).sum() for s, _ in events]


def test_missed_truth_counts_only_when_asked():
    scores, truth = scored(np.random.default_rng(8))
    event = ScoredEvent("0", scores, np.zeros((len(scores), 0)), truth, missed=truth.sum())
    candidates, everything = Sample("Mu"), Sample("Mu", comp_true=True)
    candidates.add(event)
    everything.add(event)
    np.testing.assert_allclose(everything.mean().efficiency * 2, candidates.mean().efficiency)
    np.testing.assert_allclose(everything.mean().purity, candidates.mean().purity)


def test_scan_is_a_cut_on_the_feature():
    rng = np.random.default_rng(9)
    truth = rng.random(3000) < 0.1
    feature = (rng.lognormal(8, 1, 3000) * np.where(truth, 4, 1)).astype(np.float32)
    feature[:100] *= -1
    scan = baselines.Scan()
    scan.add(feature, truth)
    for cut in (1, 2**10, 3000, 2**14):
        k = int(baselines.cut_bins(np.array([cut]))[0])
        called = feature >= baselines.cut_value(k)
        assert scan.purity[k] == pytest.approx(truth[called].mean())
        assert scan.efficiency[k] == pytest.approx((called & truth).sum() / truth.sum())
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, of the dev extra")
    auc, break_even, cut, _, _ = scan.result()
    assert auc == pytest.approx(metrics.average_precision_score(truth, np.maximum(feature, 0)), abs=0.01)
    called = np.argsort(-feature)[: truth.sum()]
    assert break_even == pytest.approx(truth[called].mean(), abs=0.02)
    assert (feature > cut).sum() == pytest.approx(truth.sum(), rel=0.1)


def test_cut_values_are_ascending_and_fine():
    values = np.array([baselines.cut_value(k) for k in range(baselines.N_CUTS)])
    assert values[0] == 0 and (np.diff(values) > 0).all()
    assert (values[4000:5000] / values[3999:4999] < 1.04).all()
    np.testing.assert_array_equal(baselines.cut_bins(values), np.arange(baselines.N_CUTS))


def test_constant_answers():
    ghost, true = baselines.constants(50, 950)
    assert (ghost.accuracy, ghost.balanced_accuracy, ghost.efficiency) == (0.95, 0.5, 0)
    assert (true.accuracy, true.purity, true.efficiency) == (0.05, 0.05, 1)


def test_combinations_of_planes():
    features = np.array([[1, 8, 27], [-5, 2, 2], [0, 0, 0]], np.float32)
    scores = baselines.combinations(features, ("V", "X", "U"))
    np.testing.assert_allclose(scores["X"], [8, 2, 0])
    np.testing.assert_allclose(scores["min(V,X,U)"], [1, 0, 0])
    np.testing.assert_allclose(scores["product(V,X,U)"], [6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores["min/max(V,X,U)"], [1 / 27, 0, 0], rtol=1e-6)


def test_truth_cut_units():
    assert parse_cut("0.001").against(Label("anything")) == 0.001
    assert parse_cut("0.17MeV").against(Label("electrons")) == pytest.approx(0.17 * ELECTRONS_PER_MEV)
    assert 4900 < parse_cut("170 keV").against(Label("electrons")) < 5100
    assert parse_cut("0.17MeV").against(Label.of("energy", "energy")) == pytest.approx(0.51)
    assert parse_cut("5ke").against(Label.of("depo", "energy")) == pytest.approx(5000 / ELECTRONS_PER_MEV)
    for wrong in ("MeV", "1.2.3", "5 muons"):
        with pytest.raises(CutError, match=r"0\.17MeV"):
            parse_cut(wrong)
    with pytest.raises(CutError, match="without a unit"):
        parse_cut("1MeV").against(Label("counts"))
