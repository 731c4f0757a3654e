"""Minimisers against functions whose minimum is known, against scipy, and in a batch against one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likelihood_doubles import Quadratic, rosenbrock, silent

from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.by_scipy import ScipyMinimiser
from hpcreco.experiments.icecube.reconstruct.fit import best_of, fit
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.trafo import Transformation

PLAIN = Space.of(tuple("abcde"))
ALL = [
    Minimiser(),
    Minimiser(method="lbfgs"),
    ScipyMinimiser(),
    ScipyMinimiser("L-BFGS-B"),
    ScipyMinimiser("trust-exact"),
    ScipyMinimiser("trust-ncg"),
]


def seeds(n: int, p: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("minimiser", ALL, ids=lambda m: f"{type(m).__name__}-{m.method}")
def test_minimum_of_a_quadratic(minimiser):
    function = Quadratic(6, 5)
    found = fit(function, silent(6), seeds(6), PLAIN, minimiser)
    assert found.converged.all()
    # within 1e-2 of a standard deviation
    assert found.loss.max() < 5e-5
    assert (found.loss <= found.seed_loss).all()


def test_batched_agrees_with_scipy_on_a_curved_valley():
    start = seeds(8)
    ours = fit(rosenbrock, silent(8), start, PLAIN, Minimiser(tolerance=1e-12))
    theirs = fit(rosenbrock, silent(8), start, PLAIN, ScipyMinimiser(options={"gtol": 1e-8}))
    assert ours.converged.all()
    # from some starts both run into the local minimum near (-1, 1, 1, 1, 1), perhaps not from the same
    same = (ours.loss - theirs.loss).abs() < 1e-6
    assert same.float().mean() > 0.7
    torch.testing.assert_close(ours.parameters[same], theirs.parameters[same], atol=1e-4, rtol=0)
    assert ours.evaluations.double().mean() < 1.5 * theirs.evaluations.double().mean()


@pytest.mark.parametrize("method", ["bfgs", "lbfgs"])
def test_a_batch_fits_like_one_by_one(method):
    start, data = seeds(7, seed=3), silent(7)
    minimiser = Minimiser(method=method)
    together = fit(rosenbrock, data, start, PLAIN, minimiser)
    for event in range(7):
        number = torch.tensor([event])
        alone = fit(rosenbrock, take(data, number), start[number], PLAIN, minimiser)
        torch.testing.assert_close(alone.parameters[0], together.parameters[event], atol=1e-9, rtol=1e-9)
        assert int(alone.evaluations) == int(together.evaluations[event])


def test_the_learnt_inverse_hessian_is_close_to_the_true_one():
    function = Quadratic(4, 5, spread=20.0)
    found = fit(function, silent(4), seeds(4), PLAIN, Minimiser(tolerance=1e-20, gradient_tolerance=1e-9))
    torch.testing.assert_close(found.inverse_hessian, torch.linalg.inv(function.matrix), rtol=0.1, atol=0.01)


def test_single_precision_ends_where_rounding_begins():
    function = Quadratic(5, 5)

    def offset(parameters, data):
        return (
            function(parameters, data) + 5000.0
        )  # as large as a bright event's loss: a step of float32 is 5e-4

    found = fit(offset, silent(5, dtype=torch.float32), seeds(5).float(), PLAIN)
    assert found.converged.all()
    assert (found.loss - 5000.0).abs().max() < 0.01


def test_a_fit_never_ends_above_its_seed():
    def treacherous(parameters, data):
        """A step the wrong way from the seed: the gradient lies."""
        value = (parameters**2).sum(1)
        return value.detach() - (value - value.detach())

    start = seeds(4)
    for minimiser in ALL[:4]:
        found = fit(treacherous, silent(4), start, PLAIN, minimiser)
        assert (found.loss <= found.seed_loss).all(), minimiser
        assert torch.isfinite(found.parameters).all()


@pytest.mark.parametrize("minimiser", [Minimiser(), ScipyMinimiser()], ids=["batched", "scipy"])
def test_what_cannot_be_computed_counts_as_infinite(minimiser):
    function = Quadratic(5, 5)

    def fragile(parameters, data):
        number = data.window[:, 0]
        if ((number == 2) & (parameters[:, 0] > -50)).any():
            raise ValueError("event 2 cannot be evaluated")
        loss = function(parameters, data)
        edge = torch.where(number == 3, function.centre[3, 0] + 0.5, torch.inf)
        return torch.where(parameters[:, 0] > edge, torch.nan, loss)

    start = function.centre - 1.0
    found = fit(fragile, silent(5), start, PLAIN, minimiser)
    assert torch.isinf(found.loss[2])
    assert not found.converged[2]
    torch.testing.assert_close(found.parameters[2], start[2])
    others = torch.tensor([0, 1, 3, 4])
    assert found.loss[others].max() < 1e-3


def test_fixed_parameters_stay_and_the_rest_is_fitted():
    function = Quadratic(3, 5)
    space = Space.of(tuple("abcde"), fixed=("b", "e"))
    found = fit(function, silent(3), seeds(3), space, Minimiser(tolerance=1e-14))
    assert torch.equal(found.parameters[:, [1, 4]], seeds(3)[:, [1, 4]])
    free, held = [0, 2, 3], [1, 4]
    # the minimum over the free ones in closed form
    shift = torch.linalg.solve(
        function.matrix[:, free][:, :, free],
        (function.matrix[:, free][:, :, held] @ (seeds(3) - function.centre)[:, held, None]),
    )[..., 0]
    torch.testing.assert_close(found.parameters[:, free], function.centre[:, free] - shift, atol=1e-5, rtol=0)


def test_boundaries_hold_in_a_batch_and_with_scipy():
    function = Quadratic(3, 5, spread=4.0)
    space = Space.of(tuple("abcde"), boundaries={"a": (-0.1, 0.1)})
    batched = fit(function, silent(3), torch.zeros(3, 5, dtype=torch.float64), space)
    boxed = fit(
        function, silent(3), torch.zeros(3, 5, dtype=torch.float64), space, ScipyMinimiser("L-BFGS-B")
    )
    for found in (batched, boxed):
        assert (found.parameters[:, 0].abs() < 0.1 + 0.001).all()
    # the foot of a steep wall is crept along, not walked: close in loss, less so in the parameters
    assert (batched.loss - boxed.loss).abs().max() < 0.05


def test_the_best_of_several_seeds_is_kept():
    def two_valleys(parameters, data):
        x = parameters[:, 0]
        return (x**2 - 1) ** 2 + 0.3 * x + (parameters[:, 1:] ** 2).sum(1)

    right = torch.tensor([[0.8, 0.3, 0, 0, 0]], dtype=torch.float64).repeat(3, 1)
    left = right * torch.tensor([-1.0, 1, 1, 1, 1])
    both = fit(two_valleys, silent(3), [right, left], PLAIN)
    assert (both.chosen == 1).all()
    assert (both.parameters[:, 0] < 0).all()
    one = fit(two_valleys, silent(3), right, PLAIN)
    assert (one.loss > both.loss + 0.1).all()
    torch.testing.assert_close(best_of([one, both]).loss, both.loss)


def test_a_direction_passes_the_pole():
    def upwards(parameters, data):
        """Smallest for a direction at zenith 0.1, azimuth 4, on the other side of the pole from the seed."""
        zenith, azimuth = parameters.unbind(1)
        u = torch.stack([zenith.sin() * azimuth.cos(), zenith.sin() * azimuth.sin(), zenith.cos()], 1)
        goal = torch.tensor([np.sin(0.1) * np.cos(4), np.sin(0.1) * np.sin(4), np.cos(0.1)])
        return 100 * (1 - u @ goal.to(u))

    start = torch.tensor([[0.2, 4 - np.pi], [0.3, 1.5]], dtype=torch.float64)
    found = fit(upwards, silent(2), start, Space.of(("zenith", "azimuth")), Minimiser(tolerance=1e-12))
    expected = torch.tensor([[0.1, 4.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(found.parameters, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cascade_without_light_may_drift_to_an_energy_of_minus_one(dtype):
    """expm1 of a very negative coordinate rounds to -1, whose logarithm does not exist."""
    trafo = Transformation(("energy",), np.array([8.0]), np.array([2.0]), [True])
    space = Space.of(("energy",), trafo)
    gone = space.parameters(torch.tensor([[-60.0]], dtype=dtype), torch.tensor([[10.0]], dtype=dtype))
    assert float(gone) == -1.0
    assert torch.isfinite(space.coordinates(gone)).all() and torch.isfinite(space.derivative(gone)).all()
    again = space.parameters(torch.tensor([[0.0]], dtype=dtype), gone)
    torch.testing.assert_close(torch.log1p(again), torch.full_like(again, 8.0))
