"""Every sampler on a normal distribution of known covariance, and what tunes their steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from likelihood_doubles import Quadratic, silent

from hpcreco.experiments.icecube.reconstruct import chains, walks
from hpcreco.experiments.icecube.reconstruct.space import Space

SPACE = Space.of(tuple("abc"))
LENGTHS = {"emcee": (40, 400, 100), "metropolis": (20, 1200, 200), "hmc": (8, 500, 80), "nuts": (2, 500, 80)}


def sampled(method, covariance, spread=9.0, lengths=None):
    function = Quadratic(1, 3, spread=spread)
    walkers, steps, burn_in = lengths or LENGTHS[method]
    settings = chains.Sampling(method, walkers, steps, burn_in, spread=0.3)
    chain = chains.sample(
        function, silent(1), function.centre[0], SPACE, settings=settings, covariance=covariance, seed=2
    )
    return function, chain


@pytest.mark.parametrize("method", LENGTHS)
def test_samples_have_mean_and_covariance_of_the_likelihood(method):
    """Starting from a covariance that is wrong by a factor of two."""
    truth = torch.linalg.inv(Quadratic(1, 3, spread=9.0).matrix[0])
    function, chain = sampled(method, 2 * truth)
    width = truth.diagonal().sqrt().numpy()
    away = (chain.parameters - function.centre[0].numpy()) / width
    assert (np.abs(away.mean(0)) < 0.15).all()
    scaled = np.cov(away.T)
    np.testing.assert_allclose(scaled, truth.numpy() / np.outer(width, width), atol=0.17)
    low, _, high = chain.quantiles
    np.testing.assert_allclose((high - low) / 2, width, rtol=0.15)
    one_event = replace(silent(1), window=torch.zeros(len(away), 2, dtype=torch.float64))
    loss = function(torch.from_numpy(chain.parameters), one_event)
    np.testing.assert_allclose(chain.loss, loss.numpy(), atol=1e-9)


@pytest.mark.parametrize("method", ["metropolis", "hmc", "nuts"])
def test_chains_without_a_covariance_find_their_step(method):
    """The target is 1 to 3 wide in units of the start's spread of 0.3, and the chains start away from it."""
    _, chain = sampled(method, None)
    wanted = 0.3 if method == "metropolis" else 0.8
    assert chain.accepted == pytest.approx(wanted, abs=0.15)


@pytest.mark.parametrize("method", LENGTHS)
def test_the_same_seed_gives_the_same_chain(method):
    lengths = (8, 5, 5)
    one, two = (sampled(method, None, lengths=lengths)[1] for _ in range(2))
    np.testing.assert_array_equal(one.parameters, two.parameters)
    assert one.parameters.shape == (40, 3)


def test_leapfrog_goes_back_where_it_came_from_and_keeps_the_energy():
    function = Quadratic(1, 3, spread=9.0)
    target = walks.Target(function, silent(1), function.centre[0], SPACE, np.eye(3))
    rng = np.random.default_rng(0)
    z, p = rng.standard_normal((2, 4, 3))
    loss, gradient = target(z)
    end, momentum, new, ended = walks.leap(target, z, p, gradient, 0.02, 50)
    drift = new + (momentum**2).sum(1) / 2 - loss - (p**2).sum(1) / 2
    assert np.abs(drift).max() < 1e-3 * np.abs(loss).max() + 1e-3
    back, turned, _, _ = walks.leap(target, end, -momentum, ended, 0.02, 50)
    np.testing.assert_allclose(back, z, atol=1e-10)
    np.testing.assert_allclose(turned, -p, atol=1e-10)


def test_the_tuner_reaches_a_step_that_is_accepted_as_wished():
    tuner = walks.Tuner(1.0, 0.6)
    for _ in range(400):
        tuner.learn(math.exp(-tuner.step / 3))
    tuner.fix()
    assert math.exp(-tuner.step / 3) == pytest.approx(0.6, abs=0.03)
