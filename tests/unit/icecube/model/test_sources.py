"""Properties that every source has: what it expects is a density and a charge, exact with gaps, and it adds up."""

from __future__ import annotations

import dataclasses
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch

from hpcreco.experiments.icecube import hypothesis, light
from hpcreco.experiments.icecube.arrays import hexagonal
from hpcreco.experiments.icecube.sources import streaming
from hpcreco.experiments.icecube.sources.contract import Expectation

FIELDS = ("charge", "variance", "full_charge", "rate", "integral")
NOISE = {"model_class": "DefaultNoiseModel", "config": {}}


def close(a: Expectation, b: Expectation, rtol=1e-10, atol=1e-13):
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(a, name), getattr(b, name), rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


KINDS = {
    "cascade": {},
    "vertex": {"time_reference": "vertex"},
    "sorted": {"prevent_mixture_component_swapping": True},
    "gamma": {"mixture": [{"family": "gamma", "count": 2}], "num_filters_list": [6, 8, 8]},
    "several families": {
        "mixture": [
            {"family": "shifted_gamma", "starts": {"offset": -0.1}},
            {"family": "exponential", "weight_factor": 0.5},
            {"family": "asymmetric_gaussian", "starts": {"mu": 0.4, "sigma": 0.3}},
        ],
        "num_filters_list": [6, 8, 12],
    },
    "poisson": {"estimate_charge_distribution": False, "num_filters_list": [6, 8, 9]},
    "gaussian charge": {"estimate_charge_distribution": True, "num_filters_list": [6, 8, 11]},
    "all inputs": {
        "add_anisotropy_angle": True,
        "add_dom_coordinates": True,
        "add_dom_angular_acceptance": True,
        "num_local_vars": 2,
        "shift_cascade_vertex": True,
    },
    "wide kernels": {"filter_size_list": [[1, 1], [3, 3], [1, 3]]},
    "wide local kernel": {"filter_size_list": [[3, 1], [1, 1], [1, 1]]},
}


TRACK = ("entry_zenith", "entry_azimuth", "entry_t", "entry_energy", "zenith", "azimuth")


def tracks():
    """(1, 2, 6) parameters of tracks that come in from above, one of them through the middle."""
    rows = [[0.4, 1.0, 7000.0, 2e4, 0.4, 1.0], [0.8, 4.0, 7500.0, 5e4, 0.7, 4.2]]
    return torch.tensor([rows], dtype=torch.float64)


@pytest.fixture
def precision(request):
    """Of a sampled density's integral: a jump within a panel costs some."""
    return 1e-3 if "several families" in request.node.name else 1e-5


@pytest.fixture(params=[*KINDS, "truth", "noise", "multi", "sphere"])
def source(request, make, detector):
    """Sources of all kinds in float64, and the parameters of two events."""
    if request.param in KINDS:
        return make.cascade(detector, **KINDS[request.param]), make.cascades()
    if request.param == "truth":
        return make.truth(detector), make.cascades()
    if request.param == "noise":
        return make.source(NOISE, detector), torch.zeros(1, 2, 0, dtype=torch.float64)
    if request.param == "sphere":
        return make.source(
            {"model_class": "EnteringSphereInfTrack", "config": make.small}, detector, make.standard(TRACK)
        ), tracks()
    settings = make.both({"model_class": "DefaultCascadeModel", "config": make.small})
    names = [f"cascade_{name}" for name in make.standard().names]
    return make.source(settings, detector, make.standard(names)), make.cascades()


def asked(make, times, dom, gaps=(), n=2):
    """Observations with one pulse per time at a DOM of the first event."""
    return make.observation([(0, dom, t, 1.0) for t in times], gaps, windows=[make.window] * n)


def panels(*edges, width=5.0):
    """Times and weights of Gauss-Legendre quadrature between START - 5e4 and STOP + 8e4, panels ending at `edges`."""
    ends = {-4e4, 9e3, 1.3e4, 9e4, *edges, *np.linspace(-4e4, 9e3, 100), *np.linspace(1.3e4, 9e4, 150)}
    ends = np.array(sorted(ends | set(np.arange(9e3, 1.3e4, width))))
    x, w = np.polynomial.legendre.leggauss(4)
    half = np.diff(ends)[:, None] / 2
    times = (ends[:-1, None] + half + half * x).reshape(-1)
    return times, (half * w).reshape(-1)


@pytest.mark.parametrize("dom", [0, 7])
def test_densities_integrate_to_one_per_ns(source, make, dom, precision):
    source, parameters = source
    times, weights = panels()
    data = asked(make, times, dom)
    e = source.expect(parameters, data)
    pdf, cdf = e.pulse_pdf(data).detach().numpy(), e.pulse_cdf(data).detach().numpy()
    assert (pdf >= 0).all() and weights @ pdf == pytest.approx(1.0, abs=precision)
    assert cdf[0] == pytest.approx(0.0, abs=1e-6) and cdf[-1] == pytest.approx(1.0, abs=1e-6)
    assert (np.diff(cdf) >= -1e-14).all()


def test_the_cdf_is_the_integral_of_the_pdf(source, make):
    source, parameters = source
    times = np.array([9700.0, 10100.0, 10600.0, 11700.0])
    h = 0.01
    data = asked(make, np.concatenate([times - h, times, times + h]), 5)
    e = source.expect(parameters, data)
    pdf, cdf = e.pulse_pdf(data).detach().reshape(-1), e.pulse_cdf(data).detach().reshape(-1)
    at, low, high = (np.searchsorted(data.time.numpy(), times + s) for s in (0, -h, h))
    slope = (cdf[high] - cdf[low]) / (2 * h)
    torch.testing.assert_close(slope, pdf[at], rtol=1e-4, atol=1e-9)


def test_the_rest_of_the_time_has_probability_one_with_gaps(source, make, precision):
    source, parameters = source
    gaps = [(0, 5, 9900.0, 10300.0), (0, 5, 10800.0, 11300.0), (1, 2, 9000.0, 13000.0)]
    times, weights = panels(*(edge for gap in gaps for edge in gap[2:]))
    data = asked(make, times, 5, gaps)
    e = source.expect(parameters, data)
    pdf, cdf = e.pulse_pdf(data).detach().numpy(), e.pulse_cdf(data).detach().numpy()
    dead = ((times > 9900.0) & (times < 10300.0)) | ((times > 10800.0) & (times < 11300.0))
    assert weights[~dead] @ pdf[~dead] == pytest.approx(1.0, abs=precision)
    assert cdf[-1] == pytest.approx(1.0, abs=1e-6) and (np.diff(cdf) >= -1e-12).all()
    assert np.ptp(cdf[(times > 10800.0) & (times < 11300.0)]) < 1e-9  # nothing comes in a gap
    whole = source.expect(parameters, asked(make, times, 5))
    torch.testing.assert_close(e.full_charge, whole.charge)
    ratio = e.charge[0, 5] / whole.charge[0, 5]
    same = whole.pulse_pdf(data).detach().numpy()
    np.testing.assert_allclose(same, ratio.item() * pdf, rtol=1e-9, atol=1e-30)
    others = torch.ones(2, 12, dtype=torch.bool)
    others[0, 5] = others[1, 2] = False
    torch.testing.assert_close(e.charge[others], whole.charge[others])


def test_adjacent_gaps_are_one_gap(source, make):
    source, parameters = source
    times = [9200.0, 12500.0]
    one = source.expect(parameters, asked(make, times, 5, [(0, 5, 9900.0, 11300.0)]))
    two = source.expect(
        parameters, asked(make, times, 5, [(0, 5, 9900.0, 10400.0), (0, 5, 10400.0, 11300.0)])
    )
    close(one, two)


def test_a_gap_where_nothing_comes_changes_nothing(source, make):
    source, parameters = source
    times = [9200.0, 12500.0]
    with_gap = source.expect(parameters, asked(make, times, 5, [(0, 5, 10000.0, 10000.0 + 1e-9)]))
    close(with_gap, source.expect(parameters, asked(make, times, 5)), rtol=1e-9)


def test_everything_excluded_stays_finite(source, make, detector):
    source, parameters = source
    gaps = [(e, d, -1e6, 1e6) for e in range(2) for d in range(detector.n_doms)]
    parameters = parameters.clone().requires_grad_(True)
    e = source.expect(parameters, asked(make, [], 0, gaps))
    assert (e.charge >= 0).all() and torch.isfinite(e.variance).all()
    assert (e.excluded > 0.999).all()
    if parameters.shape[-1]:
        (gradient,) = torch.autograd.grad((e.charge + e.variance).sum(), parameters)
        assert torch.isfinite(gradient).all()


def test_shifting_all_times_changes_nothing(source, make):
    source, parameters = source
    data = make.random_events(seed=4)
    shift = 123.456
    moved = parameters.clone()
    if parameters.shape[-1]:
        moved[..., 2 if parameters.shape[-1] == len(TRACK) else -1] += shift
    shifted = {name: getattr(data, name) + shift for name in ("time", "window", "gap_start", "gap_stop")}
    later = dataclasses.replace(data, **shifted)
    close(source.expect(parameters, data), source.expect(moved, later), rtol=1e-8, atol=1e-14)


def test_events_do_not_influence_each_other(source, make):
    source, parameters = source
    data = make.random_events(seed=5)
    both = source.expect(parameters, data)
    for event in range(2):
        its, gaps = data.event == event, data.gap_event == event
        alone = type(data)(
            data.charge[its],
            data.time[its],
            data.event[its] * 0,
            data.dom[its],
            data.window[event : event + 1],
            data.gap_start[gaps],
            data.gap_stop[gaps],
            data.gap_event[gaps] * 0,
            data.gap_dom[gaps],
            data.usable[event : event + 1],
        )
        e = source.expect(parameters[:, event : event + 1], alone)
        torch.testing.assert_close(e.charge[0], both.charge[event])
        torch.testing.assert_close(e.rate, both.rate[its])
        torch.testing.assert_close(e.integral, both.integral[its])


def test_an_event_without_pulses_is_fine(source, make):
    source, parameters = source
    e = source.expect(parameters, make.observation([], windows=[make.window] * 2))
    assert e.charge.shape == (2, 12) and e.rate.shape == (0,) and torch.isfinite(e.charge).all()


def test_derivatives_are_those_of_differences(source, make):
    source, parameters = source
    data = make.random_events(pulses=15, gaps=4, seed=6)

    def loss(values):
        e = source.expect(values, data)
        return (
            e.charge.sum()
            + 0.1 * e.variance.sqrt().sum()
            - torch.log(e.pulse_pdf(data) + 1e-6).sum()
            + e.pulse_cdf(data).sum()
        )

    if not parameters.shape[-1]:
        (value,) = list(source.parameters())
        (gradient,) = torch.autograd.grad(loss(parameters), value)
        assert torch.isfinite(gradient).all() and (gradient != 0).all()
        return
    values = parameters.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(values), values)
    steps = [1e-4, 1e-4, 1e-4, 1e-6, 1e-6, 1e-2, 1e-4]
    if parameters.shape[-1] == len(TRACK):
        steps = [1e-6, 1e-6, 1e-4, 1e-2, 1e-6, 1e-6]
    for k, h in enumerate(steps):
        for event in range(2):
            shift = torch.zeros_like(parameters)
            shift[0, event, k] = h
            with torch.no_grad():
                slope = (loss(parameters + shift) - loss(parameters - shift)) / (2 * h)
            assert gradient[0, event, k].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8)


def test_derivatives_by_every_weight_are_those_of_differences(make, detector):
    source, parameters = make.cascade(detector), make.cascades()
    data = make.random_events(pulses=15, gaps=4, seed=6)

    def loss():
        e = source.expect(parameters, data)
        return e.charge.sum() - torch.log(e.pulse_pdf(data) + 1e-6).sum() + 0.1 * e.variance.sqrt().sum()

    weights = list(source.parameters())
    gradients = torch.autograd.grad(loss(), weights)
    rng, h = np.random.default_rng(2), 1e-5
    for weight, gradient in zip(weights, gradients, strict=True):
        flat = weight.detach().view(-1)
        for k in rng.choice(weight.numel(), min(12, weight.numel()), replace=False):
            with torch.no_grad():
                flat[k] += h
                high = loss()
                flat[k] -= 2 * h
                low = loss()
                flat[k] += h
            slope = float(high - low) / (2 * h)
            assert float(gradient.reshape(-1)[k]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


# ------------------------------------------------------------------------------------------- many sources


@pytest.mark.parametrize("kind", ["cascade", "several families", "truth"])
def test_sources_together_are_their_sum(kind, make, detector):
    source = make.truth(detector) if kind == "truth" else make.cascade(detector, **KINDS[kind])
    data, parameters = make.random_events(seed=7), make.cascades(k=5, seed=7)
    alone = reduce(add, (source.expect(one[None], data) for one in parameters))
    close(source.expect(parameters, data), alone, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streaming_is_a_plain_loop_with_its_gradients(dtype, make, detector):
    source = make.cascade(detector, dtype=dtype)
    data = make.random_events(seed=8, dtype=dtype)
    parameters = make.cascades(k=50, seed=8, dtype=dtype, requires_grad=True)
    weights = list(source.parameters())

    def loss(e):
        return (
            -torch.log(e.pulse_pdf(data)).sum()
            + e.charge.sum()
            + 0.1 * e.variance.sqrt().sum()
            + e.pulse_cdf(data).sum()
        )

    plain = loss(reduce(add, (source.expect(one[None], data) for one in parameters)))
    wanted = torch.autograd.grad(plain, [parameters, *weights])
    with streaming.chunk_bytes(7 * source.row_size * 24 * parameters.element_size()):
        streamed = loss(source.expect(parameters, data))
        found = torch.autograd.grad(streamed, [parameters, *weights])
        with torch.no_grad():
            quiet = loss(source.expect(parameters, data))
    rtol = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(streamed, plain, rtol=rtol, atol=0)
    torch.testing.assert_close(quiet, plain.detach(), rtol=rtol, atol=0)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= 10 * rtol * b.abs().max()


def test_streaming_can_be_differentiated_twice(make, detector):
    source = make.truth(detector)
    data, parameters = make.random_events(n=1, seed=9), make.cascades(k=6, n=1, seed=9, requires_grad=True)

    def hessian_row(size):
        with streaming.chunk_bytes(size):
            value = (source.expect(parameters, data).charge ** 2).sum()
            (gradient,) = torch.autograd.grad(value, parameters, create_graph=True)
            return torch.autograd.grad(gradient[0, 0, 0], parameters)[0]

    torch.testing.assert_close(hessian_row(1), hessian_row(10**9))


def test_the_nearest_cascades_of_each_dom(make, detector):
    """Pruned to k, each DOM has the sum over the k cascades next to it; with k = N nothing changes."""
    source = make.cascade(detector)
    data, parameters = make.random_events(seed=10), make.cascades(k=9, seed=10)
    pruned = source.expect(parameters, data, nearest=3)
    position = torch.tensor(detector.flat_positions)
    for event in range(2):
        distance = torch.cdist(position, parameters[:, event, :3])
        order = distance.argsort(1)[:, :3]
        singles = torch.stack([source.expect(one[None], data).charge[event] for one in parameters])
        wanted = singles.T.gather(1, order).sum(1)
        torch.testing.assert_close(pruned.charge[event], wanted)
    close(source.expect(parameters, data, nearest=9), source.expect(parameters, data))


def test_a_multi_source_of_one_is_that_source(make, detector):
    base = {"model_class": "DefaultCascadeModel", "config": make.small}
    multi = {
        "model_class": "IndependentMultiSource",
        "config": {"sources": {"a": "it"}},
        "multi_source_bases": {"it": base},
    }
    one = make.source(base, detector, make.standard())
    several = make.source(multi, detector, make.standard([f"a_{n}" for n in make.standard().names]))
    data, parameters = make.random_events(seed=11), make.cascades(seed=11)
    close(one.expect(parameters, data), several.expect(parameters, data), rtol=0, atol=0)
    assert several.parameter_names == tuple(f"a_{name}" for name in one.parameter_names)


def test_order_and_names_of_sources_do_not_matter(make, detector):
    base = {"model_class": "DefaultCascadeModel", "config": make.small}

    def of(names):
        sources = dict.fromkeys(names, "it")
        settings = {
            "model_class": "IndependentMultiSource",
            "config": {"sources": {**sources, "n": "noise"}},
            "multi_source_bases": {"it": base, "noise": NOISE},
        }
        trafo = make.standard([f"{name}_{p}" for name in names for p in make.standard().names])
        return make.source(settings, detector, trafo)

    first, second = of(["a", "b"]), of(["z", "c"])
    second.load_state_dict(first.state_dict())
    data, (one, two) = make.random_events(seed=12), make.cascades(k=2, seed=12)
    close(
        first.expect(torch.cat([one, two], -1)[None], data),
        second.expect(torch.cat([two, one], -1)[None], data),
    )
    twice = first.expect(torch.cat([one, one], -1)[None], data)
    single = make.source(
        make.both(base), detector, make.standard([f"cascade_{p}" for p in make.standard().names])
    )
    assert torch.isfinite(twice.charge).all() and single.parameter_names[0] == "cascade_x"


def test_two_equal_sources_have_twice_the_charge_and_the_same_times(make, detector):
    source = make.cascade(detector)
    data, one = make.random_events(seed=13), make.cascades(seed=13)
    single, double = source.expect(one, data), source.expect(torch.cat([one, one]), data)
    torch.testing.assert_close(double.charge, 2 * single.charge)
    torch.testing.assert_close(double.pulse_pdf(data), single.pulse_pdf(data))


def test_the_truth_is_linear_in_energy(make, detector):
    source = make.truth(detector)
    data, whole = make.random_events(seed=14), make.cascades(seed=14)
    halves = whole.repeat(2, 1, 1)
    halves[0, ..., 5] *= 0.3
    halves[1, ..., 5] *= 0.7
    close(source.expect(whole, data), source.expect(halves, data), atol=1e-12)


def test_the_truth_is_what_is_simulated(make, detector):
    source, parameters = make.truth(detector, ice="default"), make.cascades(n=3, seed=15)
    times = [(0, d, 10000.0 + 50 * d, 1.0) for d in range(12)]
    data = make.observation(times, windows=[make.window] * 3)
    e = source.expect(parameters, data)
    rows, ice = parameters[0].numpy(), light.Ice()
    charge = light.expected_charge(rows, detector.flat_positions, detector.flat_efficiency, ice)
    np.testing.assert_allclose(e.charge, charge, rtol=1e-12)
    torch.testing.assert_close(e.variance, e.charge, rtol=0, atol=0)
    delay = data.time.numpy() - light.earliest(rows, detector.flat_positions, ice)[0]
    kappa = light.shape(light.distance(rows, detector.flat_positions, ice)[0], ice)
    np.testing.assert_allclose(e.pulse_pdf(data), light.delay_pdf(delay, kappa, ice), rtol=1e-10)
    np.testing.assert_allclose(e.pulse_cdf(data), light.delay_cdf(delay, kappa, ice), rtol=1e-10)


def test_the_truth_turns_with_the_detector(make):
    """A lattice of seven strings is its own image after 60°."""
    detector = hexagonal(7, 4)
    source = make.truth(detector)
    one = make.cascades(seed=16)
    turned, angle = one.clone(), np.pi / 3
    c, s = np.cos(angle), np.sin(angle)
    turned[..., 0], turned[..., 1] = c * one[..., 0] - s * one[..., 1], s * one[..., 0] + c * one[..., 1]
    turned[..., 4] += angle
    data = make.observation([], n_doms=28, windows=[make.window] * 2)
    total = [source.expect(p, data).charge.sum(1) for p in (one, turned)]
    torch.testing.assert_close(total[0], total[1], rtol=1e-6, atol=0)


def test_noise_needs_a_readout_with_length(make, detector):
    source = make.source(NOISE, detector)
    data = make.observation([(0, 3, 9000.0, 1.0)], windows=[(9000.0, 9000.0)])
    with pytest.raises(ValueError, match="readout of 0.0 ns"):
        source.expect(torch.zeros(1, 1, 0, dtype=torch.float64), data)


def test_noise_starts_with_the_detectors_rates(make, detector):
    source = hypothesis.build(NOISE, detector)
    e = source.expect(torch.zeros(1, 1, 0), make.observation([], dtype=torch.float32))
    rates = torch.tensor(detector.flat_noise_rate * 4000.0, dtype=torch.float32)
    torch.testing.assert_close(e.charge[0], rates, rtol=1e-6, atol=2e-7)
    alpha = ((e.variance - e.charge) / e.charge**2)[0][~torch.tensor(detector.flat_dead)]
    torch.testing.assert_close(alpha, torch.full_like(alpha, 1e-3), rtol=0.1, atol=0)


def test_charge_only_knows_no_times(make, detector):
    settings = {
        "model_class": "ChargeOnlyCascadeModel",
        "config": {"num_filters_list": [6, 8, 2]},
    }
    source = make.source(settings, detector, make.standard())
    data = make.random_events(seed=17)
    e = source.expect(make.cascades(seed=17), data)
    pdf = e.pulse_pdf(data)
    assert torch.unique(pdf.detach().mul(1e9).round()).numel() <= 1 + len(data.gap_dom)
    without = ~torch.isin(data.hits.pulse, data.hits.gap)
    torch.testing.assert_close(pdf[without], torch.full_like(pdf[without], 1 / 4000.0))


def test_legacy_time_units_are_a_thousand_times_larger_densities(make, detector):
    data, parameters = make.random_events(gaps=0), make.cascades()
    new, old = (make.cascade(detector, legacy_time_units=flag) for flag in (False, True))
    torch.testing.assert_close(old.expect(parameters, data).rate, 1000 * new.expect(parameters, data).rate)
