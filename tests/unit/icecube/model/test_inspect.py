"""Densities on times of one's choice, and events drawn from a hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from hpcreco.experiments.icecube.sources import inspect

GAPS = [(0, 4, 10050.0, 10200.0), (1, 2, 9900.0, 10600.0)]


@pytest.fixture
def nested(make, detector):
    """A row of cascades beside noise, its parameters (2, p), and two events' readout."""
    row = {
        "model_class": "StartingVariableMultiCascadeModel",
        "config": {"num_cascades": 2},
        "multi_source_bases": {"cascade": {"model_class": "TruthModel", "config": {"systematics": 0.2}}},
    }
    source = make.source(make.both(row), detector)
    parameters = torch.cat([make.cascades(seed=3)[0], torch.tensor([[2e4, 20.0], [1e4, 30.0]]).double()], -1)
    return source, parameters, make.observation([(0, 1, 9999.0, 1.0)], GAPS, windows=[make.window] * 2)


def test_densities_on_chosen_times(nested):
    source, parameters, data = nested
    times = torch.linspace(9000.0, 13000.0, 8001).double()
    density = inspect.pdf(source, parameters, data, times, doms=[4, 2, 0])
    fraction = inspect.cdf(source, parameters, data, times, doms=[4, 2, 0])
    assert density.shape == fraction.shape == (2, 3, 8001)
    torch.testing.assert_close(density.sum(-1) * 0.5, torch.ones(2, 3).double(), rtol=0, atol=0.03)
    inside = (times >= 10050.0) & (times < 10200.0)
    assert (density[0, 0, inside] == 0).all() and (density[1, 0, inside] > 0).all()
    torch.testing.assert_close(
        fraction[:, :, 1:].diff() / 0.5, density[:, :, 1:-1], rtol=0, atol=0.05 * float(density.max())
    )


def test_parts_by_name_add_up(nested):
    source, parameters, data = nested
    times = torch.linspace(9500.0, 11000.0, 50).double()
    parts = inspect.rates(source, parameters, data, times, doms=[4, 7])
    assert sorted(parts) == ["cascade/cascade_00000", "cascade/cascade_00001", "noise"]
    question = inspect.asked(data, times, [4, 7])
    whole = source.expect(parameters[None], question).rate
    torch.testing.assert_close(sum(parts.values()).reshape(-1), whole)


def test_times_may_differ_between_events(nested):
    source, parameters, data = nested
    times = torch.stack([torch.linspace(9500, 9600, 5), torch.linspace(10100, 10900, 5)]).double()
    density = inspect.pdf(source, parameters, data, times, doms=[5])
    for event in range(2):
        alone = inspect.pdf(source, parameters, data, times[event], doms=[5])
        torch.testing.assert_close(density[event], alone[event])


def test_drawn_events_follow_the_hypothesis(nested, detector):
    source, parameters, data = nested
    rng, draws = np.random.default_rng(5), 25
    with torch.no_grad():
        known = source.expect(parameters[None], inspect.asked(data, torch.zeros(0), []))
    expected, variance = known.charge, known.variance
    charges, quantiles = [], []
    for _ in range(draws):
        event = inspect.sample(source, parameters, data, rng)
        assert not event.in_gap.any()
        assert ((event.time >= 9000.0) & (event.time <= 13000.0)).all()
        charges.append(event.dom_charge)
        quantiles.append(source.expect(parameters[None], event).pulse_cdf(event).detach().numpy())
        place = event.event * event.n_doms + event.dom
        assert (place.diff() >= 0).all() and (event.time.diff()[place.diff() == 0] >= 0).all()
    found, pit = torch.stack(charges), np.concatenate(quantiles)
    z = (found.mean(0) - expected) / (variance / draws).sqrt().clamp_min(1e-9)
    bright = expected > 1.0
    assert z[bright].abs().max() < 4.5 and abs(float(z[bright].mean())) < 1.0
    ratio = found.var(0)[bright] / variance[bright]
    assert 0.6 < float(ratio.mean()) < 1.4
    assert stats.kstest(pit, "uniform").pvalue > 1e-3


def test_drawn_events_are_those_of_the_seed(nested):
    source, parameters, data = nested
    first, again, other = (
        inspect.sample(source, parameters, data, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.time, again.time) and not torch.equal(first.dom_charge, other.dom_charge)


def test_excluded_doms_see_nothing(nested, make):
    source, parameters, _ = nested
    data = make.observation([], windows=[make.window] * 2, excluded=[(0, 4), (1, 7)])
    event = inspect.sample(source, parameters, data, np.random.default_rng(1))
    assert event.dom_charge[0, 4] == 0 and event.dom_charge[1, 7] == 0 and event.dom_charge[1, 4] > 0
