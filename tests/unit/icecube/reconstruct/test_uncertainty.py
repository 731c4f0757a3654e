"""Covariances, circularised errors, sky scans, chains and scans against closed forms."""

from __future__ import annotations

import math

import healpy
import numpy as np
import pytest
import torch
from likelihood_doubles import rosenbrock, silent

from hpcreco.experiments.icecube import healpix
from hpcreco.experiments.icecube.reconstruct import scans, skyscan
from hpcreco.experiments.icecube.reconstruct.angles import angles, away_from, opening, unit
from hpcreco.experiments.icecube.reconstruct.circular import circularised, rayleigh_width
from hpcreco.experiments.icecube.reconstruct.covariance import (
    angular_error,
    covariances,
    inverse,
    outer_products,
    physical,
)
from hpcreco.experiments.icecube.reconstruct.objective import Objective, by_differences
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.trafo import Transformation

F64 = torch.float64
NAMES = ("zenith", "azimuth", "energy")


def trafo() -> Transformation:
    return Transformation(NAMES, np.array([1.5, 3.0, 9.0]), np.array([0.7, 1.8, 2.6]), [False, False, True])


class OnTheSphere:
    """psi^2 / 2 sigma^2 around a direction per event, and ln E = 9 + its distance from a plane, with error 0.1."""

    def __init__(self, zenith: list[float], azimuth: list[float], sigma: list[float]) -> None:
        self.centre = unit(torch.tensor(zenith, dtype=F64), torch.tensor(azimuth, dtype=F64))
        self.sigma = torch.tensor(sigma, dtype=F64)

    def __call__(self, parameters, data):
        number = data.window[:, 0].long()
        direction = unit(parameters[:, 0], parameters[:, 1])
        # smooth also at psi = 0, where an angle itself has no gradient
        chord = (direction - self.centre[number]).pow(2).sum(1)
        energy = (torch.log1p(parameters[:, 2]) - 9 - 0.3 * direction[:, 0]) / 0.1
        return chord / (2 * self.sigma[number] ** 2) + energy**2 / 2

    def best(self) -> torch.Tensor:
        return torch.stack([*angles(self.centre), torch.expm1(9 + 0.3 * self.centre[:, 0])], 1)


def test_hessian_by_differentiation_and_by_differences():
    y = 0.3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    objective = Objective(rosenbrock, silent(5), Space.of(tuple("abcd")), y)
    exact = objective.hessian(y)
    torch.testing.assert_close(objective.hessian_by_differences(y), exact, rtol=1e-5, atol=1e-3)
    by_hand = torch.autograd.functional.hessian(lambda x: rosenbrock(x, silent(5)).sum(), y)
    torch.testing.assert_close(exact, torch.stack([by_hand[i, :, i, :] for i in range(5)]))


def test_sources_that_differentiate_once_still_have_a_hessian(caplog):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**4).sum(1)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad[:, None] * 4 * ctx.saved_tensors[0] ** 3

    y = torch.tensor([[0.5, -1.0]], dtype=F64)
    objective = Objective(lambda x, data: Once.apply(x), silent(1), Space.of(("a", "b")), y)
    by_differences.clear()
    found = [objective.hessian(y) for _ in range(3)][-1]
    assert by_differences.total() == 3
    assert caplog.text.count("does not require grad") == 1  # the reason, said once
    torch.testing.assert_close(found, torch.diag_embed(12 * y**2), rtol=1e-6, atol=1e-4)


def test_inverse_of_good_singular_and_broken_matrices():
    good = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=F64)
    singular = torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=F64)
    broken = torch.tensor([[2.0, torch.nan], [torch.nan, 1.0]], dtype=F64)
    found = inverse(torch.stack([good, singular, broken]))
    torch.testing.assert_close(found[0] @ good, torch.eye(2, dtype=F64))
    torch.testing.assert_close(found[1], torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=F64))
    assert torch.isnan(found[2]).all()


def test_covariance_of_a_linear_model_in_closed_form():
    """y = A x + noise of width s, assumed 1: H = A'A, J = sum of r^2 a a', the sandwich is right where H^-1 is not."""
    rng = torch.Generator().manual_seed(4)
    design = torch.randn(400, 3, generator=rng, dtype=F64)
    truth = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    noise = 1.7 * torch.randn(400, generator=rng, dtype=F64)

    def squares(parameters):
        return (design @ truth + noise - parameters @ design.T) ** 2 / 2

    def terms(parameters, data):
        return squares(parameters)[0], torch.zeros(400, dtype=torch.int64)

    best = torch.linalg.lstsq(design, (design @ truth + noise)[:, None]).solution.T
    objective = Objective(lambda x, data: squares(x).sum(1), silent(1), Space.of(tuple("abc")), best)
    found = covariances(objective, best, terms)
    residual = design @ truth + noise - design @ best[0]
    closed = torch.linalg.inv(design.T @ design)
    scores = design * residual[:, None]
    torch.testing.assert_close(found["hessian"][0], closed)
    torch.testing.assert_close(found["opg"][0], torch.linalg.inv(scores.T @ scores), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        found["sandwich"][0], closed @ scores.T @ scores @ closed, rtol=1e-6, atol=1e-9
    )
    assert found["sandwich"].diagonal(dim1=1, dim2=2).sum() > 2 * closed.trace()
    outer = outer_products(objective, best, terms)
    torch.testing.assert_close(outer[0], scores.T @ scores, rtol=1e-6, atol=1e-6)


def test_units_against_samples():
    """A covariance in coordinates, sampled and transformed, has the covariance that the formula says."""
    space = Space.of(NAMES, trafo())
    best = torch.tensor([[1.2, 2.0, 5000.0]], dtype=F64)
    factor = torch.tensor([[0.01, 0, 0], [0.004, 0.02, 0], [0.002, 0.001, 0.005]], dtype=F64)
    covariance = (factor @ factor.T)[None]
    rng = torch.Generator().manual_seed(1)
    y = space.coordinates(best) + torch.randn(200_000, 3, generator=rng, dtype=F64) @ factor.T
    x = space.parameters(y, best.expand(len(y), 3))
    found = physical(covariance, space, best)[0]
    torch.testing.assert_close(torch.cov(x.T), found, rtol=0.03, atol=1e-5)
    logs = torch.cat([x[:, :2], torch.log1p(x[:, 2:])], 1)
    torch.testing.assert_close(
        torch.cov(logs.T), physical(covariance, space, best, log_units=True)[0], rtol=0.02, atol=1e-6
    )
    expected = trafo().covariance(covariance, best)
    torch.testing.assert_close(found[None], expected)


@pytest.mark.parametrize("given_scale", [False, True])
def test_circularised_error_of_a_gaussian_on_the_sphere(given_scale):
    function = OnTheSphere([1.2, 0.4, 2.9], [2.0, 6.0, 0.1], [0.03, 0.1, 0.01])
    space = Space.of(NAMES, trafo())
    best = function.best()
    scale = 2.4 * function.sigma if given_scale else None
    sigma = circularised(
        function, silent(3), best, function(best, silent(3)), space, scale=scale,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    torch.testing.assert_close(sigma, function.sigma, rtol=0.02, atol=0)


def test_circularised_error_agrees_with_the_covariance():
    function = OnTheSphere([1.2, 0.7], [2.0, 6.0], [0.02, 0.05])
    space = Space.of(NAMES, trafo())
    best = function.best()
    objective = Objective(function, silent(2), space, best)
    covariance = physical(covariances(objective, space.coordinates(best))["hessian"], space, best)
    torch.testing.assert_close(
        angular_error(covariance, space, best, (0, 1)), function.sigma, rtol=0.01, atol=0
    )


def test_rayleigh_width_is_exact_for_a_rayleigh_distribution():
    psi = torch.linspace(0.01, 0.2, 10, dtype=F64)[None].repeat(2, 1)
    sigma = torch.tensor([0.05, 0.4], dtype=F64)
    probability = 1 - torch.exp(-(psi**2) / (2 * sigma[:, None] ** 2))
    torch.testing.assert_close(rayleigh_width(psi, probability), sigma, rtol=1e-4, atol=0)


def test_directions_at_an_angle():
    zenith = torch.tensor([0.0, 0.3, 3.1], dtype=F64)
    azimuth = torch.tensor([1.0, 6.2, 3.0], dtype=F64)
    for angle in (1e-6, 0.4, 3.0):
        for position in (0.0, 2.0, 5.0):
            moved = away_from(
                zenith, azimuth, torch.full((3,), angle, dtype=F64), torch.full((3,), position, dtype=F64)
            )
            found = opening(unit(zenith, azimuth), unit(*moved))
            torch.testing.assert_close(found, torch.full((3,), angle, dtype=F64), rtol=1e-6, atol=1e-12)


def test_pixels_of_a_scan_cover_the_sky_once_at_their_finest():
    nside, pixel = healpix.pixels(2, ((5, 32), (15, 16)), [(1.0, 2.0)])
    assert len(np.unique(np.stack([nside, pixel]), axis=1).T) == len(pixel)
    assert (nside == 2).sum() == 48
    whole = healpix.combined(nside, pixel, nside.astype(float))
    assert not np.isnan(whole).any()
    middle = healpy.ang2vec(1.0, 2.0)
    distance = np.degrees(
        np.arccos(np.stack(healpy.pix2vec(32, np.arange(len(whole)), nest=True), 1) @ middle)
    )
    assert (whole[distance < 4] == 32).all()
    assert (whole[(distance > 7) & (distance < 12)] == 16).all()
    assert (whole[distance > 25] == 2).all()


def test_a_sky_scan_finds_the_truth_and_its_shape():
    function = OnTheSphere([1.2], [2.0], [0.05])
    space = Space.of(NAMES, trafo())
    away = torch.tensor([1.35, 2.1, 6000.0], dtype=F64)
    found = skyscan.scan(function, silent(1), away, space, rings=((5, 64), (20, 32)), centres=[(1.25, 2.05)])
    best = unit(*torch.tensor(found.parameters[found.best][:2]))
    assert math.degrees(float(opening(best, function.centre[0]))) < math.degrees(healpy.nside2resol(64))
    # everywhere the energy has been fitted: what is left is psi^2 / 2 sigma^2
    direction = unit(*torch.tensor(found.parameters[:, :2]).T)
    chord = (direction - function.centre[0]).pow(2).sum(1)
    np.testing.assert_allclose(found.loss, chord / (2 * 0.05**2), atol=1e-3)
    zenith, azimuth = found.sample(4000, np.random.default_rng(0))
    psi = opening(unit(torch.tensor(zenith), torch.tensor(azimuth)), function.centre[0])
    assert float(psi.pow(2).mean().sqrt()) == pytest.approx(0.05 * math.sqrt(2), rel=0.1)


def test_loss_scans_show_the_parabola():
    function = OnTheSphere([1.2], [2.0], [0.05])
    space = Space.of(NAMES, trafo())
    best = function.best()[0]
    found = scans.scan(function, silent(1), best, space, points=101, reach=0.01)
    assert set(found.parameter) == {0, 1, 2}
    for number in range(3):
        rows = found.parameter == number
        assert found.loss[rows].argmin() == 50
        assert found.value[rows][50] == pytest.approx(float(best[number]))
    energy = found.parameter == 2
    np.testing.assert_allclose(
        found.loss[energy],
        ((np.log1p(found.value[energy]) - np.log1p(float(best[2]))) / 0.1) ** 2 / 2,
        atol=1e-6,
    )
