"""Systematic uncertainties as parameters with priors: profiled and marginalised, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from likelihood_doubles import Quadratic, silent

from hpcreco.experiments.icecube.reconstruct import chains, scans
from hpcreco.experiments.icecube.reconstruct.covariance import covariances
from hpcreco.experiments.icecube.reconstruct.fit import fit
from hpcreco.experiments.icecube.reconstruct.objective import Objective
from hpcreco.experiments.icecube.reconstruct.space import Space, SpaceError

F64 = torch.float64
NAMES = ("x", "y", "scale")
PRIOR = {"scale": (0.4, 0.2)}


@pytest.fixture(scope="module")
def normal():
    """A normal likelihood of three parameters, the last with a prior; precision and mean of the posterior."""
    function = Quadratic(1, 3, spread=9.0)
    precision = function.matrix[0].clone()
    precision[2, 2] += 1 / 0.2**2
    pull = function.matrix[0] @ function.centre[0]
    pull[2] += 0.4 / 0.2**2
    return function, precision, torch.linalg.solve(precision, pull)


def test_a_fit_with_a_prior_is_the_posterior_maximum_and_its_covariance_is_profiled(normal):
    function, precision, mean = normal
    space = Space.of(NAMES, priors=PRIOR)
    found = fit(function, silent(1), torch.zeros(1, 3, dtype=F64), space)
    torch.testing.assert_close(found.parameters[0], mean, atol=4e-3, rtol=0)
    objective = Objective(function, silent(1), space, found.parameters)
    covariance = covariances(objective, found.parameters)["hessian"][0]
    torch.testing.assert_close(covariance, torch.linalg.inv(precision))
    # larger than with the systematic parameter held
    held = torch.linalg.inv(precision[:2, :2])
    assert (covariance.diagonal()[:2] > held.diagonal()).all()


def test_samples_are_marginalised_over_the_prior(normal):
    function, precision, mean = normal
    settings = chains.Sampling("hmc", 8, 500, 80)
    space, width = Space.of(NAMES, priors=PRIOR), torch.linalg.inv(precision)
    chain = chains.sample(function, silent(1), mean, space, settings=settings, covariance=width, seed=1)
    sigma = width.diagonal().sqrt().numpy()
    np.testing.assert_allclose(chain.parameters.mean(0), mean.numpy(), atol=0.15 * sigma.max())
    np.testing.assert_allclose(chain.parameters.std(0), sigma, rtol=0.12)


def banana(parameters, data):
    """Normal in x and in s given x, with a width of s that grows with x."""
    x, s = parameters.unbind(1)
    return 0.5 * (x / 0.5) ** 2 + 0.5 * (s * torch.exp(-x)) ** 2


def test_scans_hold_fit_or_integrate_what_is_not_scanned(normal):
    function, precision, mean = normal
    space = Space.of(NAMES, priors=PRIOR)
    marginal = torch.linalg.inv(precision)[0, 0]
    for others, curvature in (
        ("held", precision[0, 0]),
        ("fitted", 1 / marginal),
        ("marginalised", 1 / marginal),
    ):
        found = scans.scan(function, silent(1), mean, space, points=21, reach=0.8, others=others)
        rows = found.parameter == 0
        rise = found.loss[rows] - found.loss[rows][10]
        np.testing.assert_allclose(
            rise, 0.5 * float(curvature) * (found.value[rows] - float(mean[0])) ** 2, atol=1e-4
        )


def test_marginalising_counts_the_volume_that_a_profile_does_not():
    """Of `banana` with a wide prior the integral over s grows with its width e^x."""
    space = Space.of(("x", "s"), priors={"s": (0.0, 1e4)})
    best = torch.zeros(2, dtype=F64)
    losses = {}
    for others in ("fitted", "marginalised"):
        found = scans.scan(banana, silent(1), best, space, points=11, reach=0.5, others=others)
        rows = found.parameter == 0
        losses[others] = found.loss[rows] - found.loss[rows][5]
        x = found.value[rows]
    np.testing.assert_allclose(losses["fitted"], 2 * x**2, atol=1e-6)
    np.testing.assert_allclose(losses["marginalised"], 2 * x**2 - x, atol=1e-4)


def test_wrong_priors_are_named():
    with pytest.raises(SpaceError, match="no parameter 'z'"):
        Space.of(NAMES, priors={"z": (0, 1)})
    with pytest.raises(SpaceError, match="prior of x"):
        Space.of(NAMES, priors={"x": (0, 0)})
    kept = Space.of(NAMES, priors=PRIOR).without("x")
    assert kept.priors == PRIOR and replace(kept).free_names == ("y", "scale")
