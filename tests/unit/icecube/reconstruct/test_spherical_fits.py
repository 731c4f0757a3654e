"""Distributions on the sphere, fitted to samples drawn from known parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.stats import vonmises_fisher

from hpcreco.experiments.icecube.reconstruct import spherical_fits
from hpcreco.experiments.icecube.reconstruct.spherical_fits import FITS, vectors

FRAME = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]


def drawn(log_density, n, seed=0, around=None, reach=np.pi):
    """(n, 3) by rejection from points that are uniform in a cap."""
    rng = np.random.default_rng(seed)
    found = np.empty((0, 3))
    centre = FRAME[:, 2] if around is None else around
    side = np.linalg.svd(centre[None])[2][1:]
    while len(found) < n:
        cosine = 1 - rng.random(200_000) * (1 - math.cos(reach))
        phi = 2 * np.pi * rng.random(200_000)
        sine = np.sqrt(1 - cosine**2)
        x = cosine[:, None] * centre + sine[:, None] * (
            np.cos(phi)[:, None] * side[0] + np.sin(phi)[:, None] * side[1]
        )
        log = log_density(x)
        found = np.concatenate([found, x[np.log(rng.random(len(x))) < log - log.max()]])
    return found[:n]


def kent(kappa, beta):
    g2, g3, g1 = FRAME.T
    return lambda x: kappa * (x @ g1 - 1) + beta * ((x @ g2) ** 2 - (x @ g3) ** 2)


@pytest.mark.parametrize("kappa", [2.0, 300.0, 1e5])
def test_von_mises_fisher_of_scipys_samples(kappa):
    x = vonmises_fisher(FRAME[:, 2], kappa, seed=1).rvs(4000)
    found = spherical_fits.von_mises_fisher(x)
    assert found.values["kappa"] == pytest.approx(kappa, rel=0.06)
    mean = vectors(found.values["zenith"], found.values["azimuth"])
    assert np.linalg.norm(mean - FRAME[:, 2]) < 4 / math.sqrt(4000 * kappa / 2)
    np.testing.assert_allclose(
        found.log_density(x[:5]), vonmises_fisher(mean, found.values["kappa"]).logpdf(x[:5]), atol=1e-6
    )


def test_gauss_in_the_tangent_plane():
    rng = np.random.default_rng(0)
    offset = rng.standard_normal((5000, 2)) * [0.02, 0.05]
    turn = 0.6  # of the longer axis from larger zenith towards larger azimuth
    zenith = 1.1 + offset[:, 1] * math.cos(turn) - offset[:, 0] * math.sin(turn)
    azimuth = 0.01 + (offset[:, 1] * math.sin(turn) + offset[:, 0] * math.cos(turn)) / math.sin(1.1)
    found = spherical_fits.gauss(vectors(zenith, azimuth)).values
    assert found["major"] == pytest.approx(0.05, rel=0.04) and found["minor"] == pytest.approx(0.02, rel=0.04)
    assert found["angle"] == pytest.approx(turn, abs=0.05)
    assert found["zenith"] == pytest.approx(1.1, abs=0.003)


@pytest.mark.parametrize(("kappa", "beta"), [(20.0, 6.0), (800.0, 250.0)])
def test_kent_of_its_own_samples(kappa, beta):
    x = drawn(kent(kappa, beta), 4000, reach=min(np.pi, 12 / math.sqrt(kappa - 2 * beta)))
    found = spherical_fits.kent(x)
    assert found.values["kappa"] == pytest.approx(kappa, rel=0.08)
    assert found.values["beta"] == pytest.approx(beta, rel=0.15)
    mean = vectors(found.values["zenith"], found.values["azimuth"])
    assert mean @ FRAME[:, 2] > 1 - 20 / (4000 * (kappa - 2 * beta))
    south = vectors(found.values["zenith"] + np.pi / 2, found.values["azimuth"])
    axis = math.cos(found.values["angle"]) * south + math.sin(found.values["angle"]) * np.cross(mean, south)
    assert abs(axis @ FRAME[:, 0]) > 0.99


def test_fb8_finds_what_the_others_cannot_hold():
    """Natural parameters of a broad one with two maxima; and never a worse likelihood than its special cases."""
    a = np.array([1.0, -0.5, 2.0])
    b = np.array([[3.0, 0.7, 0.2], [0.7, -1.0, 0.4], [0.2, 0.4, -2.0]])
    x = drawn(lambda v: v @ a + np.einsum("ni,ij,nj->n", v, b, v), 20_000)
    found = spherical_fits.fb8(x)
    values = found.values
    np.testing.assert_allclose([values[f"a_{c}"] for c in "xyz"], a, atol=0.2)
    np.testing.assert_allclose(
        [values[f"b_{c}"] for c in ("xx", "yy", "xy", "xz", "yz")], [3.0, -1.0, 0.7, 0.2, 0.4], atol=0.2
    )
    narrow = drawn(kent(800.0, 250.0), 4000, reach=0.6)
    for sample in (x[:4000], narrow):
        mean = {kind: fit(sample).log_density(sample).mean() for kind, fit in FITS.items() if kind != "gauss"}
        assert mean["fb8"] >= mean["kent"] - 1e-4
        assert mean["kent"] >= mean["von_mises_fisher"] - 1e-6


@pytest.mark.parametrize("kind", ["von_mises_fisher", "kent", "fb8"])
def test_densities_integrate_to_one(kind):
    log_density = FITS[kind](drawn(kent(20.0, 6.0), 2000)).log_density

    def f(zenith, azimuth):
        return math.exp(log_density(vectors(np.array([zenith]), np.array([azimuth])))[0]) * math.sin(zenith)

    total = dblquad(f, 0, 2 * np.pi, 0, np.pi, epsabs=1e-4, epsrel=1e-4)[0]
    assert total == pytest.approx(1, abs=2e-3)
