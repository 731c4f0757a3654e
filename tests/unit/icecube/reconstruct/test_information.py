"""The scores of independent terms against events drawn again and again, and when they are too few to be used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.experiments.icecube import files
from hpcreco.experiments.icecube.analysis import results, statistics
from hpcreco.experiments.icecube.reconstruct import model
from hpcreco.experiments.icecube.reconstruct.covariance import outer_products
from hpcreco.experiments.icecube.reconstruct.events import open_events
from hpcreco.experiments.icecube.reconstruct.objective import Objective
from hpcreco.experiments.icecube.reconstruct.rows import take


@pytest.fixture(scope="module")
def repeated(simulated):
    """The truth as a model, the dimmest event's parameters, and 300 events drawn from them."""
    path = simulated / "pulses-00000.h5"
    data, given = open_events(path, range(20))
    data, found = data.to(dtype=torch.float64), model.truth(files.of_shard(path))
    event = data.dom_charge.sum(1).argmin()[None]
    truth = torch.from_numpy(given.truth[0])[event].repeat(300, 1)
    like = take(data, event.repeat(300))
    return found, truth, found.draw(truth, like, np.random.default_rng(3))


def test_outer_products_of_terms_have_the_covariance_of_the_score(repeated):
    """At the truth: mean of J = covariance of the gradient, and terms of pulses estimate it better than whole DOMs."""
    found, truth, drawn = repeated
    space = found.space()
    objective = Objective(found.likelihood, drawn, space, truth)
    y = space.coordinates(truth)
    score = objective(y)[1]
    assert (score.mean(0).abs() < 4.5 * score.std(0) / len(score) ** 0.5).all()
    covariance = torch.cov(score.T)
    width = covariance.diagonal().sqrt()

    def by_dom(parameters, data):
        _, dom = found.likelihood.by_dom(parameters, data)
        return dom.reshape(-1), torch.arange(len(dom)).repeat_interleave(dom.shape[1])

    fine, coarse = (outer_products(objective, y, terms) for terms in (found.likelihood.independent, by_dom))
    for outer in (fine, coarse):
        # entries of a covariance from N draws are known to about 1 / sqrt(N)
        ratio = (outer.mean(0) - covariance) / (width[:, None] * width)
        assert ratio.abs().max() < 0.3
    fine, coarse = (torch.stack([j.diagonal() for j in outer]) for outer in (fine, coarse))
    better = fine.std(0) / coarse.std(0)
    assert (better[:3] < 0.85).all()  # the position is in the times, of which there are many
    assert (better < 1.02).all()  # the direction is in the charges: no more of them than DOMs with light


def test_coverage_from_few_doms_is_not_shown_and_said_so():
    names, n = ("a", "b"), 50
    fit = {"parameters": np.zeros((n, 2)), "truth": np.zeros((n, 2)), "loss": np.zeros(n)}
    matrices = {kind: np.tile(np.eye(2), (n, 1, 1)) for kind in ("hessian", "opg", "sandwich")}
    for doms, shown, said in ((15, 1, "not shown"), (300, 3, None)):
        table = fit | {"doms": np.full(n, doms)}
        found = results.Results(names, names, (), table, matrices, {}, {}, {})
        assert len(statistics.coverage(found).found) == shown
        warnings = statistics.warnings(found)
        assert (said is None and not warnings) or said in warnings[0]
