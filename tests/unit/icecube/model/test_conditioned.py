"""Cascades given a charge quantile or systematics, and cascades along tracks that shine by themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco.experiments.icecube import losses
from hpcreco.experiments.icecube.settings import LossTerm
from hpcreco.experiments.icecube.sources.configured import SourceError

CASCADE = ("x", "y", "z", "zenith", "azimuth", "energy", "time")
SPHERE = ("entry_zenith", "entry_azimuth", "entry_t", "entry_energy", "zenith", "azimuth")


def values(*rows):
    return torch.tensor(rows, dtype=torch.float64)[None]


def check_gradients(source, parameters, data, columns):
    """Autograd against central differences of a sum over everything."""

    def total(p):
        e = source.expect(p, data)
        return (
            e.charge.sum() + 1e3 * (e.rate * torch.linspace(1, 2, len(e.rate)).to(p)).sum() + e.variance.sum()
        )

    p = parameters.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(total(p), p)
    for k in columns:
        step = 1e-5 * max(1.0, float(parameters[0, 0, k].abs()))
        shift = torch.zeros_like(parameters)
        shift[0, 0, k] = step
        numeric = (total(parameters + shift) - total(parameters - shift)) / (2 * step)
        assert float(gradient[0, 0, k]) == pytest.approx(float(numeric), rel=1e-4, abs=1e-7), k


# ----------------------------------------------------------------------------------------------- charge quantiles


@pytest.fixture(scope="module")
def by_quantile(make, detector):
    settings = {"model_class": "ChargeQuantileCascade", "config": make.small}
    return make.source(settings, detector, make.standard())


def test_quantiles_are_the_share_of_the_doms_charge(make):
    data = make.observation(
        [(0, 1, 9100, 1.0), (0, 1, 9200, 3.0), (0, 5, 9100, 2.0), (1, 1, 9000, 1.0)],
        windows=[make.window] * 2,
    )
    torch.testing.assert_close(data.quantile, torch.tensor([0.25, 1, 1, 1], dtype=torch.float64))


def test_densities_given_a_quantile_integrate_to_one_and_differ(make, by_quantile):
    """Two pulses far apart in charge: the one that is asked about has quantile q, whatever its time."""
    cascade = values([10.0, -20, 5, 1.0, 2.0, 1e4, 9600.0])
    times = np.linspace(-40_000, 90_000, 26_001)
    found = []
    for q in (0.1, 0.9):
        data = make.observation([(0, 3, t, 1.0) for t in times])
        vars(data)["quantile"] = torch.full((len(times),), q, dtype=torch.float64)
        e = by_quantile.expect(cascade, data)
        found.append(e.pulse_pdf(data).detach().numpy())
        assert np.trapezoid(found[-1], times) == pytest.approx(1, abs=1e-3)
    assert np.abs(found[0] - found[1]).max() > 0.01 * found[0].max()


def test_the_cdf_grows_as_the_mean_density_over_quantiles(make, by_quantile):
    cascade = values([10.0, -20, 5, 1.0, 2.0, 1e4, 9600.0])
    times = np.linspace(9200, 12000, 50)

    def asked(shift):
        return make.observation([(0, 3, t + shift, 1.0) for t in times])

    up, down = (by_quantile.expect(cascade, asked(s)).pulse_cdf(asked(s)).detach() for s in (0.01, -0.01))
    mean = 0.0
    for node, weight in zip(*np.polynomial.legendre.leggauss(8), strict=True):
        data = asked(0.0)
        vars(data)["quantile"] = torch.full((50,), 0.5 + 0.5 * node, dtype=torch.float64)
        mean = mean + 0.5 * weight * by_quantile.expect(cascade, data).pulse_pdf(data).detach()
    torch.testing.assert_close((up - down) / 0.02, mean, rtol=1e-4, atol=1e-9)


def test_the_quantile_loss_counts_pulses_of_a_range_once_each(make, by_quantile):
    data = make.observation([(0, 3, 9800, 1.0), (0, 3, 9900, 3.0), (0, 5, 9850, 2.0)])
    cascade = values([10.0, -20, 5, 1.0, 2.0, 1e4, 9600.0])
    e = by_quantile.expect(cascade, data)
    each = -e.pulse_pdf(data).log().detach()
    for low, high, rows in ((0.0, 1.0, [0, 1, 2]), (0.5, 1.0, [1, 2]), (0.0, 0.5, [0])):
        term = LossTerm(
            function="unbinned_charge_quantile_pdf", min_charge_quantile=low, max_charge_quantile=high
        )
        (found,) = losses.terms([term], e, data).values()
        assert float(found.detach()) == pytest.approx(float(each[rows].sum()), rel=1e-12)
    check_gradients(by_quantile, cascade, data, range(7))


# ----------------------------------------------------------------------------------------------- systematics


def test_outputs_are_linear_in_systematics_and_do_not_move_at_their_mean(make, detector):
    names = (*CASCADE, "scattering_00", "scattering_01")
    config = {**make.small, "snowstorm_parameter_names": [["scattering_{:02d}", 2]]}
    source = make.source(
        {"model_class": "SystematicsCascade", "config": config}, detector, make.standard(names)
    )
    data = make.random_events(n=1)
    plain = [10.0, -20, 5, 1.0, 2.0, 1e4, 9600.0]

    def outputs(*systematic):
        p = values([*plain, *systematic]).transpose(0, 1)[None]
        return source.outputs(p, source.describe(p)).detach()

    middle, one, two = outputs(0.0, 0.0), outputs(30.0, 0.0), outputs(0.0, 50.0)
    torch.testing.assert_close(outputs(30.0, 50.0), one + two - middle)
    torch.testing.assert_close(outputs(-60.0, 0.0), 3 * middle - 2 * one)
    assert not torch.allclose(one, middle)
    check_gradients(source, values([*plain, 20.0, -30.0]), data, range(9))
    with pytest.raises(SourceError, match="no systematic parameters"):
        make.source({"model_class": "SystematicsCascade", "config": make.small}, detector, make.standard())


# ----------------------------------------------------------------------------------------------- tracks


def segment(make):
    return {"model_class": "StochasticTrackSegment", "config": make.small}


def outer(make, names):
    return make.standard(tuple(dict.fromkeys((*names, *CASCADE))))


def test_a_segment_moves_with_its_time_and_has_gradients(make, detector):
    source = make.source(segment(make), detector, make.standard((*CASCADE, "length")))
    row = [30.0, -80, 10, 1.1, 0.7, 1e4, 9500.0, 150.0]
    data = make.random_events(n=1, gaps=2)
    check_gradients(source, values(row), data, range(8))
    torch.testing.assert_close(
        source.expect(values([*row[:6], 9600.0, 150.0]), make.observation([(0, 3, 10000, 1.0)])).rate,
        source.expect(values(row), make.observation([(0, 3, 9900, 1.0)])).rate,
    )
    # beyond its end a longer one is the same to DOMs that are nearest to the beginning
    assert (source.expect(values(row), data).charge > 0).all()


def test_a_track_with_cascades_is_the_sum_of_both(make, detector):
    names = (
        *CASCADE,
        "length",
        "cascade_00000_energy",
        "cascade_00000_distance",
        "cascade_00001_energy",
        "cascade_00001_distance",
    )
    cascade = {"model_class": "DefaultCascadeModel", "config": make.small}
    settings = {
        "model_class": "StochasticTrackModel",
        "config": {"num_cascades": 2},
        "multi_source_bases": {"cascade": cascade, "track": segment(make)},
    }
    source = make.source(settings, detector, outer(make, names))
    assert source.parameter_names == names
    row = [30.0, -80, 10, 1.1, 0.7, 1e4, 9500.0, 150.0, 2e3, 40.0, 5e3, 90.0]
    data = make.random_events(n=1, gaps=3)
    parts = dict(source.parts(values(row), data))
    assert list(parts) == ["track", "cascade_00000", "cascade_00001"]
    total = source.expect(values(row), data)
    torch.testing.assert_close(total.rate, sum(part.rate for part in parts.values()))
    u = -torch.tensor([np.sin(1.1) * np.cos(0.7), np.sin(1.1) * np.sin(0.7), np.cos(1.1)])
    where = (torch.tensor(row[:3]) + 90 * u).tolist()
    alone = source.bases["cascade"].expect(values([*where, 1.1, 0.7, 5e3, 9500 + 90 / 0.299792458]), data)
    torch.testing.assert_close(parts["cascade_00001"].charge, alone.charge)
    check_gradients(source, values(row), data, range(12))
    with pytest.raises(SourceError, match="called cascade and track"):
        make.source({**settings, "multi_source_bases": {"cascade": cascade}}, detector, outer(make, names))


def test_losses_along_the_sphere_and_the_nearest_of_them(make, detector):
    cascade = {"model_class": "DefaultCascadeModel", "config": make.small}
    track = {"model_class": "EnteringSphereInfTrack", "config": {**make.small, "sphere_radius": 300.0}}
    row = [1.0, 2.0, 9500.0, 1e4, 1.2, 2.1]
    made = {}
    for nearest in (2, None):
        settings = {
            "model_class": "EnteringSphereInfTrackMultiCascade",
            "config": {"cascade_spacing": 100.0, "nearest_cascades": nearest},
            "multi_source_bases": {"cascade": cascade, "track": track},
        }
        names = (*SPHERE, *(f"energy_loss_{i:04d}" for i in range(6)))
        made[nearest] = make.source(settings, detector, outer(make, names))
        assert made[nearest].parameter_names == names
    data = make.random_events(n=1)
    one = values([*row, 0, 0, 3e3, 0, 0, 0])
    lit = made[None].cascades(one)[:, 0, 0]
    steps = torch.diff(lit[:, :3], dim=0).norm(dim=1)
    torch.testing.assert_close(steps, torch.full((5,), 100.0, dtype=torch.float64))
    assert float(lit[0, 6]) == pytest.approx(9500 + 50 / 0.299792458)
    every, few = (made[k].expect(values([*row, *[1e3] * 6]), data) for k in (None, 2))
    assert (few.charge <= every.charge + 1e-12).all() and (few.charge < every.charge).any()
    check_gradients(made[2], values([*row, 1e3, 2e3, 3e3, 1e3, 2e3, 1e3]), data, range(12))
