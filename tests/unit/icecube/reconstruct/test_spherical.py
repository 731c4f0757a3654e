"""Minimisers on the sphere: over the poles and the seam of the azimuth, and out of false minima."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from likelihood_doubles import Quadratic, silent

from hpcreco.experiments.icecube.reconstruct import by_spherical
from hpcreco.experiments.icecube.reconstruct.angles import opening, unit
from hpcreco.experiments.icecube.reconstruct.by_spherical import Points, SphericalMinimiser
from hpcreco.experiments.icecube.reconstruct.fit import fit
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.trafo import Transformation

F64 = torch.float64
NAMES = ("x", "zenith", "azimuth")
TRAFO = Transformation(NAMES, np.array([1.0, 1.5, 3.0]), np.array([10.0, 0.7, 1.8]), [False, False, False])


def towards(zenith, azimuth):
    """A likelihood with its minimum at a direction and at x = 3 + the direction's z."""
    centre = unit(torch.tensor(zenith, dtype=F64), torch.tensor(azimuth, dtype=F64))

    def likelihood(parameters, data):
        direction = unit(parameters[:, 1], parameters[:, 2])
        x = parameters[:, 0] - 3 - direction[:, 2]
        return 200 * (direction - centre).pow(2).sum(1) + x**2

    return likelihood, centre


@pytest.mark.parametrize("method", ["crs2", "nelder-mead"])
@pytest.mark.parametrize("direction", [(0.02, 3.5), (1.2, 6.27), (math.pi - 0.01, 1.0)])
def test_directions_at_poles_and_seam_are_found(method, direction):
    likelihood, centre = towards(*direction)
    start = torch.tensor([[0.0, 0.4 + 0.7 * direction[0], (direction[1] + 0.5) % (2 * math.pi)]], dtype=F64)
    minimiser = SphericalMinimiser(method, tolerance=1e-7)
    found = fit(likelihood, silent(1), start, Space.of(NAMES, TRAFO), minimiser)
    assert found.converged.all() and float(found.loss) < 1e-5
    assert float(opening(unit(*found.parameters[0, 1:]), centre)) < 1e-3
    assert float(found.parameters[0, 0]) == pytest.approx(3 + math.cos(direction[0]), abs=5e-3)


@pytest.mark.parametrize("method", ["crs2", "nelder-mead"])
def test_plain_numbers_are_minimised_too_and_fixed_angles_stay(method):
    function = Quadratic(2, 3, spread=10.0)
    start = torch.zeros(2, 3, dtype=F64)
    found = fit(
        function, silent(2), start, Space.of(tuple("abc")), SphericalMinimiser(method, tolerance=1e-8)
    )
    torch.testing.assert_close(found.parameters, function.centre, atol=1e-3, rtol=0)
    likelihood, _ = towards(1.0, 1.0)
    start = torch.tensor([[0.0, 1.0, 2.0]], dtype=F64)
    held = fit(
        likelihood, silent(1), start, Space.of(NAMES, TRAFO, fixed=("azimuth",)), SphericalMinimiser(method)
    )
    assert float(held.parameters[0, 2]) == 2.0


def test_a_random_search_leaves_a_false_minimum():
    def likelihood(parameters, data):
        x = parameters[:, 0]
        return 5 * (1 - torch.cos(3 * x)) + 0.2 * (x - 6) ** 2

    start = torch.zeros(1, 1, dtype=F64)
    wide = SphericalMinimiser(width=4.0, population=40, tolerance=1e-6)
    found = fit(likelihood, silent(1), start, Space.of(("a",)), wide)
    assert float(found.parameters) == pytest.approx(2 * math.pi, abs=0.1)


def test_reflection_is_along_the_great_circle_and_its_own_inverse():
    points = Points(Space.of(NAMES, TRAFO), torch.zeros(1, 3, dtype=F64))
    y = torch.tensor([[0.3, -1.2, 0.4], [-0.2, 0.8, -1.0]], dtype=F64)
    rows = points.rows(y)
    middle, away = rows
    mirrored = points.beyond(middle, away, 1.0)
    np.testing.assert_allclose(points.beyond(middle, mirrored, 1.0), away, atol=1e-12)
    assert mirrored[0] == pytest.approx(2 * middle[0] - away[0])
    assert np.linalg.norm(mirrored[1:]) == pytest.approx(1)
    assert mirrored[1:] @ middle[1:] == pytest.approx(away[1:] @ middle[1:])
    half = points.beyond(middle, away, -0.5)
    assert np.arccos(half[1:] @ middle[1:]) == pytest.approx(0.5 * np.arccos(away[1:] @ middle[1:]))
    back = points.coordinates(rows)
    np.testing.assert_allclose(points.rows(back), rows, atol=1e-12)


def test_methods_are_those_of_the_settings():
    from hpcreco.experiments.icecube.reconstruct.settings import SphericalSettings

    for method in by_spherical.METHODS:
        assert SphericalSettings(method=method).method == method
