"""Terms of -ln L: charge distributions and their limits, what is left out, what adds up."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube import losses
from hpcreco.experiments.icecube.losses import charge as charges
from hpcreco.experiments.icecube.settings import LOSSES, PRIOR, LossTerm
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation

MEANS = [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4]
CHARGES = [0.0, 1.0, 5.0, 100.0]


def tensor(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(("mean", "charge"), list(itertools.product(MEANS, CHARGES)))
@pytest.mark.parametrize("share", [1.0, 1e-3, 1e-6])
def test_little_dispersion_is_poisson(mean, charge, share):
    alpha = share * 1e-3 / (charge + mean + 1)
    nb = charges.negative_binomial(tensor(charge), tensor(mean), tensor(alpha))
    poisson = charges.poisson(tensor(charge), tensor(mean))
    assert abs(float(nb - poisson)) <= alpha * (charge**2 + mean**2 + 1) + 1e-11 * abs(float(poisson))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mean", "charge"), list(itertools.product(MEANS, CHARGES)))
@pytest.mark.parametrize("alpha", [0.0, 1e-30, 1e-12, 1e-6, 0.04, 0.06, 1.0, 50.0])
def test_values_and_gradients_are_finite(mean, charge, alpha, dtype):
    mu, a = tensor(mean, dtype=dtype).requires_grad_(), tensor(alpha, dtype=dtype).requires_grad_()
    value = charges.negative_binomial(tensor(charge, dtype=dtype), mu, a)
    value.sum().backward()
    assert value.dtype == dtype
    for x in (value, mu.grad, a.grad):
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("alpha", [1e-9, 1e-4, 0.049, 0.051, 0.3, 2.0])
@pytest.mark.parametrize("mean", [0.01, 1.0, 20.0])
def test_it_is_a_distribution_with_the_variance_it_says(mean, alpha):
    q = torch.arange(0, 4000, dtype=torch.float64)
    p = charges.negative_binomial(q, tensor(mean), tensor(alpha)).exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float((p * q).sum()) == pytest.approx(mean, rel=1e-8)
    assert float((p * (q - mean) ** 2).sum()) == pytest.approx(mean + alpha * mean**2, rel=1e-7)


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 0.0499, 0.0501, 0.7])
@pytest.mark.parametrize("charge", [0.0, 0.3, 4.0, 250.5])
def test_derivatives_are_those_of_the_plain_formula(alpha, charge):
    import mpmath

    mu, a = tensor(7.0).requires_grad_(), tensor(alpha).requires_grad_()
    value = charges.negative_binomial(tensor(charge), mu, a)
    by_mu, by_alpha = torch.autograd.grad(value.sum(), (mu, a))

    def plain(m, b):
        r = 1 / b
        return (
            mpmath.loggamma(charge + r) - mpmath.loggamma(r) - mpmath.loggamma(charge + 1)
            - r * mpmath.log(1 + b * m) + charge * mpmath.log(b * m / (1 + b * m))
        )  # fmt: skip

    with mpmath.workdps(60):
        assert float(value.detach()) == pytest.approx(
            float(plain(mpmath.mpf(7), mpmath.mpf(alpha))), rel=1e-9, abs=1e-9
        )
        assert float(by_mu) == pytest.approx(
            float(mpmath.diff(lambda m: plain(m, mpmath.mpf(alpha)), 7)), rel=1e-7
        )
        slope = float(
            mpmath.diff(lambda b: plain(mpmath.mpf(7), b), mpmath.mpf(alpha), h=mpmath.mpf(alpha) * 1e-12)
        )
        assert float(by_alpha) == pytest.approx(slope, rel=1e-5, abs=1e-6)


# ------------------------------------------------------------------------------------------ terms


def scene(n=3, m=5, seed=0, dtype=torch.float64):
    """Random expectations of n events in m DOMs, with pulses sorted by event, DOM and time."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    pulses = 40
    place = torch.sort((draw(pulses) * n * m).long()).values
    event, dom = place // m, place % m
    time = draw(pulses) * 100
    order = torch.argsort(place * 1000 + time)
    usable = torch.ones(n, m, dtype=torch.bool)
    usable[1, 2] = False
    none = torch.zeros(0, dtype=torch.float64)
    data = Observation(
        charge=(0.2 + draw(pulses)).to(dtype), time=time[order].to(dtype), event=event, dom=dom,
        window=tensor(0.0, 100.0).repeat(n, 1).to(dtype), gap_start=none, gap_stop=none,
        gap_event=none.long(), gap_dom=none.long(), usable=usable,
    )  # fmt: skip
    charge = 0.1 + 3 * draw(n, m)
    expectation = Expectation(
        charge.to(dtype), (charge + 0.2 * charge**2).to(dtype), charge.to(dtype),
        (0.01 * draw(pulses)).to(dtype), (charge[event, dom] * draw(pulses)).to(dtype),
    )  # fmt: skip
    return expectation, data


def only(expectation, data, event):
    """Event number `event` alone."""
    rows = data.event == event
    none = data.gap_start
    one = Observation(
        data.charge[rows], data.time[rows], data.event[rows] * 0, data.dom[rows], data.window[event][None],
        none, none, data.gap_event, data.gap_dom, data.usable[event][None],
    )  # fmt: skip
    return Expectation(
        expectation.charge[event][None], expectation.variance[event][None], expectation.full_charge[event][None],
        expectation.rate[rows], expectation.integral[rows],
    ), one  # fmt: skip


@pytest.mark.parametrize("function", LOSSES)
def test_a_batch_loses_what_its_events_lose(function):
    terms = [LossTerm(function=function, weight=1.7)]
    expectation, data = scene()
    (together,) = losses.terms(terms, expectation, data).values()
    for event in range(3):
        (alone,) = losses.terms(terms, *only(expectation, data, event)).values()
        assert float(together[event]) == pytest.approx(float(alone[0]), rel=1e-12)


@pytest.mark.parametrize("function", LOSSES)
def test_sorted_terms_are_the_same_sum(function):
    terms = [LossTerm(function=function), LossTerm(function="dom_charge_pdf", weight=0.3)]
    expectation, data = scene()
    found = losses.parts(terms, expectation, data)
    event, dom = found.event, found.dom + losses.at_doms(found.pulse, data)
    total = sum(losses.terms(terms, expectation, data).values())
    torch.testing.assert_close(event + dom.sum(1), total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", LOSSES)
def test_an_excluded_dom_counts_nowhere(function):
    terms = [LossTerm(function=function)]
    expectation, data = scene()
    (before,) = losses.terms(terms, expectation, data).values()
    expectation.charge[1, 2] *= 50
    expectation.rate[(data.event == 1) & (data.dom == 2)] = 0.7
    (after,) = losses.terms(terms, expectation, data).values()
    assert torch.equal(before, after)


def test_the_first_terms_weight_counts():
    expectation, data = scene()
    one, two = LOSSES[:2]
    plain = losses.terms([LossTerm(function=one), LossTerm(function=two)], expectation, data)
    heavy = losses.terms([LossTerm(function=one, weight=3.0), LossTerm(function=two)], expectation, data)
    torch.testing.assert_close(heavy[one], 3 * plain[one])
    torch.testing.assert_close(heavy[two], plain[two])


def test_terms_against_their_formulas():
    expectation, data = scene()
    valid = data.usable
    pulses = valid[data.event, data.dom]
    p = expectation.rate / expectation.charge[data.event, data.dom]
    time = torch.zeros(3, dtype=torch.float64).index_add(
        0, data.event[pulses], -(data.charge * p.log())[pulses]
    )
    q, mu = data.dom_charge, expectation.charge
    extended = torch.where(valid, mu - q * mu.log() + torch.lgamma(q + 1), 0).sum(1)
    shape = torch.where(valid, -q * (mu / torch.where(valid, mu, 0).sum(1, keepdim=True)).log(), 0).sum(1)
    found = losses.terms([LossTerm(function=name) for name in LOSSES], expectation, data)
    torch.testing.assert_close(found["unbinned_pulse_time_llh"], time)
    torch.testing.assert_close(found["unbinned_extended_pulse_llh"], time + extended)
    torch.testing.assert_close(found["normalized_dom_charge_pdf"], shape)
    torch.testing.assert_close(
        found["unbinned_pulse_and_dom_charge_pdf"], time + found["negative_binomial_charge_pdf"]
    )


def single_pulse(cdf, charges=(1.0,), dtype=torch.float64):
    """One DOM; pulses of these charges, of which the first has the given cdf."""
    n = len(charges)
    none = torch.zeros(0, dtype=dtype)
    data = Observation(
        torch.tensor(charges, dtype=dtype), torch.arange(n, dtype=dtype), torch.zeros(n, dtype=torch.int64),
        torch.zeros(n, dtype=torch.int64), tensor(0.0, 9.0, dtype=dtype)[None], none, none,
        none.long(), none.long(), torch.ones(1, 1, dtype=torch.bool),
    )  # fmt: skip
    mu = torch.full((1, 1), 2.0, dtype=dtype)
    return Expectation(
        mu, mu, mu, torch.full((n,), 0.3, dtype=dtype), torch.full((n,), 2.0 * cdf, dtype=dtype)
    ), data


def test_mpe_of_one_pulse_is_its_time_and_of_an_early_one_that_times_the_charge():
    term = [LossTerm(function="unbinned_pulse_time_mpe_llh")]
    (alone,) = losses.terms(term, *single_pulse(0.4)).values()
    assert float(alone) == pytest.approx(-math.log(0.15))
    (early,) = losses.terms(term, *single_pulse(0.0, (1.0, 4.0, 2.0))).values()
    assert float(early) == pytest.approx(-math.log(7.0) - math.log(0.15))
    (late,) = losses.terms(term, *single_pulse(0.4, (1.0, 4.0, 2.0))).values()
    assert float(late) == pytest.approx(-math.log(7.0) - math.log(0.15) - 6 * math.log(0.6))


def test_no_light_expected_and_none_seen_is_finite():
    expectation, data = scene()
    expectation.charge[0, 0] = expectation.variance[0, 0] = 0.0
    data.usable[0, 0] = False
    charge = expectation.charge.clone().requires_grad_()
    changed = Expectation(charge, expectation.variance, charge, expectation.rate, expectation.integral)
    total = sum(losses.terms([LossTerm(function=name) for name in LOSSES], changed, data).values())
    total.sum().backward()
    assert torch.isfinite(total).all()
    assert torch.isfinite(charge.grad).all()


def test_priors_are_flat_inside_steep_outside_and_name_what_they_do_not_find():
    names = ("a", "b")
    flat = LossTerm(function=PRIOR, uniform={"a": (0.0, 2.0)})
    values = tensor(-0.1, 0.0, 1.0, 2.0, 2.1, 1e6)[:, None].expand(-1, 2)
    found = losses.prior(flat, values, names)
    assert found[1:4].tolist() == [0.0] * 3
    expected = math.exp(10 * 1.05) - math.exp(10)
    assert found[0] == pytest.approx(expected)
    assert found[4] == pytest.approx(expected)
    assert torch.isfinite(found.float()).all()
    normal = LossTerm(function=PRIOR, normal={"b": (1.0, 0.5)}, weight=2.0)
    assert losses.prior(normal, tensor(0.0, 2.0)[None], names).tolist() == [pytest.approx(4.0)]
    with pytest.raises(ConfigError, match="prior on 'c'"):
        losses.prior(LossTerm(function=PRIOR, normal={"c": (0, 1)}), values, names)
