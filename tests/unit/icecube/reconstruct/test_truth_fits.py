"""Fits of simulated events with the formulas that they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.experiments.icecube.reconstruct import goodness, model, seeds, skyscan
from hpcreco.experiments.icecube.reconstruct.angles import opening, unit
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.covariance import covariances, physical
from hpcreco.experiments.icecube.reconstruct.events import open_events
from hpcreco.experiments.icecube.reconstruct.fit import fit
from hpcreco.experiments.icecube.reconstruct.objective import Objective
from hpcreco.experiments.icecube.reconstruct.rows import take


@pytest.fixture(scope="module")
def events(simulated):
    """The truth as a model, 40 events, their true parameters, smeared seeds."""
    parts = [open_events(simulated / f"pulses-{k:05d}.h5", range(20)) for k in range(2)]
    found = model.truth(detector(simulated))
    truth = torch.cat([torch.from_numpy(given.truth[0]) for _, given in parts])
    smeared = torch.cat([seeds.from_columns(*given.seeds["smeared"], found.names) for _, given in parts])
    return found, [data.to(dtype=torch.float64) for data, _ in parts], truth, smeared


def detector(folder):
    from hpcreco.experiments.icecube import files

    return files.of_shard(folder / "pulses-00000.h5")


@pytest.fixture(scope="module")
def fits(events):
    """Fits from the truth, and pulls from their covariance, of all 40 events."""
    found, parts, truth, _ = events
    space = found.space()
    results, pulls = [], []
    for data, true in zip(parts, truth.split(20), strict=True):
        result = fit(found.likelihood, data, true, space)
        objective = Objective(found.likelihood, data, space, result.parameters)
        matrix = covariances(objective, space.coordinates(result.parameters))["hessian"]
        width = physical(matrix, space, result.parameters).diagonal(dim1=1, dim2=2).sqrt()
        residual = result.parameters - true
        residual[:, 4] = torch.remainder(residual[:, 4] + torch.pi, 2 * torch.pi) - torch.pi
        results.append(result)
        pulls.append(residual / width)
    return results, torch.cat(pulls)


def test_no_fit_ends_above_its_seed_and_all_converge(fits):
    for result in fits[0]:
        assert (result.loss <= result.seed_loss).all()
        assert result.converged.all()


def test_the_gain_over_the_truth_is_half_a_chi_square(fits):
    """Wilks: twice the gain has mean 7 and variance 14 for seven parameters."""
    gain = torch.cat([2 * (result.seed_loss - result.loss) for result in fits[0]])
    assert float(gain.mean()) == pytest.approx(7.0, abs=4 * (14 / len(gain)) ** 0.5)


def test_pulls_have_width_one(fits):
    """280 pulls of 40 events: the width of all of them within four standard errors, each parameter's within reason."""
    pulls = fits[1]
    assert torch.isfinite(pulls).all()
    assert float(pulls.std()) == pytest.approx(1.0, abs=4 / np.sqrt(2 * pulls.numel()))
    assert ((pulls.std(0) > 0.6) & (pulls.std(0) < 1.4)).all(), pulls.std(0)
    assert (pulls.mean(0).abs() < 4 / np.sqrt(len(pulls))).all(), pulls.mean(0)


def test_smeared_seeds_reach_the_same_minimum(events, fits):
    found, parts, _, smeared = events
    result = fit(found.likelihood, parts[0], smeared[:20], found.space())
    same = (result.loss - fits[0][0].loss).abs() < 0.01
    assert same.float().mean() >= 0.85  # a few events have a second minimum
    assert float((result.seed_loss - result.loss).median()) > 10


def test_a_seed_from_the_data_is_close_and_leads_to_the_minimum(events, fits):
    found, parts, truth, _ = events
    seed = found.seed_from_data(parts[0])
    distance = (seed[:, :3] - truth[:20, :3]).norm(dim=1)
    assert float(distance.median()) < 40.0
    ratio = (seed[:, 5] / truth[:20, 5]).log()
    assert float(ratio.abs().median()) < 0.5
    assert float((seed[:, 6] - truth[:20, 6]).abs().median()) < 150.0
    result = fit(found.likelihood, parts[0], seed, found.space())
    assert (result.loss - fits[0][0].loss < 0.5).float().mean() >= 0.7


def dimmest(parts, truth, count):
    """The dimmest events of the first shard, which are drawn fastest."""
    chosen = torch.argsort(parts[0].dom_charge.sum(1))[:count]
    return take(parts[0], chosen), truth[chosen]


def test_goodness_of_the_truth_is_uniform(events):
    """The hypothesis that drew the events is one of those drawn: every rank is as likely."""
    found, parts, truth, _ = events
    data, true = dimmest(parts, truth, 16)
    rng = np.random.default_rng(0)
    result = goodness.goodness(
        found.likelihood, lambda p, like: found.draw(p, like, rng), data, true,
        found.likelihood(true, data).detach(), found.space(), samples=9, terms=found.by_dom,
    )  # fmt: skip
    assert result.terms.shape == (16, 71)
    assert ((result.two_sided >= 0) & (result.two_sided <= 1)).all()
    p = result.one_sided
    assert float(p.mean()) == pytest.approx(0.5, abs=3.5 / np.sqrt(12 * len(p)))
    assert 0.03 < float(p.var()) < 0.16  # 1 / 12 if uniform
    lit = result.terms[:, 1:][(data.dom_charge > 0) & data.usable]
    assert float(lit.mean()) == pytest.approx(0.4, abs=0.15)  # lit DOMs are the ones that fluctuated upwards


def test_goodness_sees_events_that_the_model_would_not_make(events):
    found, parts, truth, _ = events
    data, wrong = dimmest(parts, truth, 4)
    wrong[:, 6] += 150.0  # ns
    rng = np.random.default_rng(0)
    result = goodness.goodness(
        found.likelihood, lambda p, like: found.draw(p, like, rng), data, wrong,
        found.likelihood(wrong, data).detach(), found.space(), samples=4,
    )  # fmt: skip
    assert float(result.one_sided.max()) == 0.0


def test_a_sky_scan_is_lowest_at_the_fit(events, fits):
    found, parts, _, _ = events
    best = fits[0][0]
    event = torch.tensor([int(best.seed[:, 5].argmax())])
    scanned = skyscan.scan(
        found.likelihood, take(parts[0], event), best.parameters[event][0], found.space(),
        nside=1, rings=((12.0, 16),), minimiser=Minimiser(tolerance=1e-3),
    )  # fmt: skip
    lowest = unit(*torch.from_numpy(scanned.parameters[scanned.best][3:5]))
    fitted = unit(*best.parameters[event][0][3:5])
    assert np.degrees(float(opening(lowest, fitted))) < 6.0
    assert scanned.loss.min() > float(best.loss[event]) - 0.01
