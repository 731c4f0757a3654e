"""From settings to sources: nesting, names, freezing, the users' own files, rows of cascades."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube import components, hypothesis
from hpcreco.experiments.icecube.arrays import hexagonal
from hpcreco.experiments.icecube.simulation import hypothesis as simulated
from hpcreco.experiments.icecube.simulation.settings import Hypothesis
from hpcreco.experiments.icecube.sources.configured import SourceError
from hpcreco.experiments.icecube.sources.crossing import Cylinder
from hpcreco.experiments.icecube.sources.geometry import direction
from hpcreco.experiments.icecube.sources.truth import model_settings

NOISE = {"model_class": "DefaultNoiseModel", "config": {}}
TRUTH = {"model_class": "TruthModel", "config": {}}
TRACK = {
    "model_class": "TrackEquidistantCascadeModel",
    "config": {
        "max_num_cascades": 10,
        "cascade_spacing": 15,
        "cylinder_radius": 600,
        "cylinder_extension": 500,
    },
    "multi_source_bases": {"cascade": TRUTH},
}


def starting(n, base=TRUTH, **config):
    return {
        "model_class": "StartingVariableMultiCascadeModel",
        "config": {"num_cascades": n, **config},
        "multi_source_bases": {"cascade": base},
    }


# ------------------------------------------------------------------------------------------- names and nesting


def test_names_are_nested_in_alphabetical_order(make, detector):
    source = make.source(make.both(starting(2)), detector)
    cascade = make.standard().names
    assert source.parameter_names == tuple(
        f"cascade_{name}" for name in (*cascade, "cascade_00001_energy", "cascade_00001_distance")
    )


def test_any_depth(make, detector):
    settings = TRUTH
    for level in range(4):
        settings = {
            "model_class": "IndependentMultiSource",
            "config": {"sources": {f"s{level}": "it"}},
            "multi_source_bases": {"it": settings},
        }
    source = make.source(settings, detector)
    assert source.parameter_names[0] == "s3_s2_s1_s0_x"
    data = make.random_events(seed=1)
    parameters = make.cascades(seed=1)
    plain = make.source(TRUTH, detector).expect(parameters, data)
    torch.testing.assert_close(source.expect(parameters, data).rate, plain.rate, rtol=0, atol=0)
    assert [name for name, _ in source.parts(parameters, data)] == ["s3/s2/s1/s0"]


def test_shared_bases_share_weights(make, detector):
    settings = {
        "model_class": "IndependentMultiSource",
        "config": {"sources": {"a": "it", "b": "it"}},
        "multi_source_bases": {"it": {"model_class": "DefaultCascadeModel", "config": make.small}},
    }
    trafo = make.standard([f"{s}_{p}" for s in "ab" for p in make.standard().names])
    source = make.source(settings, detector, trafo)
    alone = make.source(settings["multi_source_bases"]["it"], detector, make.standard())
    assert sum(p.numel() for p in source.parameters()) == sum(p.numel() for p in alone.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_class": "DefaultNoizeModel"}, "did you mean 'DefaultNoiseModel'"),
        ({"model_clas": "DefaultNoiseModel"}, "did you mean 'model_class'"),
        ({"model_class": "DefaultNoiseModel", "config": {"fixd": True}}, "did you mean 'fixed'"),
        ({"config": {}}, "model_class is missing"),
        ({"model_class": "no_such_module:Source"}, "cannot be imported"),
        (
            {
                "model_class": "IndependentMultiSource",
                "config": {"sources": {"a": "it"}},
                "multi_source_bases": {},
            },
            "base 'it' that multi_source_bases lacks",
        ),
        (
            {
                "model_class": "IndependentMultiSource",
                "config": {"sources": {"a": "it"}},
                "multi_source_bases": {"it": NOISE, "more": NOISE},
            },
            "has 'more', which no source is of",
        ),
        ({**starting(2), "multi_source_bases": {"shower": TRUTH}}, "called cascade"),
        (starting(2, NOISE), "should have the parameters"),
        (
            {"model_class": "DefaultCascadeModel", "config": {"num_filters_list": [5, 41]}},
            r"ends with 41, but there are 42 outputs",
        ),
        (
            {
                "model_class": "DefaultCascadeModel",
                "config": {"num_filters_list": [5, 6, 42], "activation_list": ["elu"]},
            },
            "activation_list has 1 entries for 3 layers",
        ),
        ({"model_class": "DefaultCascadeModel", "config": {}}, "icecube trafo"),
        ({**NOISE, "freeze": ["network.*"]}, "no weight matches 'network"),
    ],
)
def test_what_cannot_be_is_said(settings, message, detector):
    with pytest.raises((ConfigError, SourceError), match=message):
        hypothesis.build(settings, detector)


def test_lists_may_be_too_long(make, detector):
    config = {**make.small, "filter_size_list": [[1, 1]] * 9, "activation_list": ["elu"] * 2 + [""] * 4}
    make.source({"model_class": "DefaultCascadeModel", "config": config}, detector, make.standard())


def test_freezing_by_patterns(make, detector):
    settings = make.both({"model_class": "DefaultCascadeModel", "config": make.small})
    settings.update(freeze=["cascade"], unfreeze=["cascade.network.layers.2.*"])
    trafo = make.standard([f"cascade_{p}" for p in make.standard().names])
    source = make.source(settings, detector, trafo)
    trained = {name for name, p in source.named_parameters() if p.requires_grad}
    assert trained == {
        "bases.noise.values",
        *(f"bases.cascade.network.layers.2.{w}" for w in ("weight", "bias", "factor")),
    }


# ------------------------------------------------------------------------------------------- the users' files

FILES = {
    "7param": "cascade_7param_noise_tw_BFRv1Spice321.yaml",
    "n002": "starting_multi_cascade_7param_noise_tw_BFRv1Spice321_low_mem_n002.yaml",
    "n10": "track_equidistant_cascades_n10_w15_7param_noise_tw_BFRv1Spice321_low_mem.yaml",
}


@pytest.fixture
def users_settings(public_data):
    """`users_settings(key)`: `model_settings` of a user's file."""
    return lambda key: yaml.safe_load((public_data / "user-configs" / FILES[key]).read_text())[
        "model_settings"
    ]


def cascade_trafo(make):
    return make.standard([f"cascade_{p}" for p in make.standard().names])


def test_the_users_cascade(make, users_settings):
    detector = hexagonal(7, 10)
    source = hypothesis.build(users_settings("7param"), detector, cascade_trafo(make))
    assert source.parameter_names == cascade_trafo(make).names
    cascade = source.bases["cascade"]
    assert cascade.settings.time_reference == "vertex"
    shapes = [tuple(layer.weight.shape) for layer in cascade.network.layers]
    assert shapes == [(70, 12, 25), (25, 500), (500, 500), (500, 500), (500, 42)]
    data = make.random_events(n_doms=70, dtype=torch.float32)
    e = source.expect(make.cascades(dtype=torch.float32), data)
    assert torch.isfinite(e.rate).all() and (e.charge > 0).all()


@pytest.mark.parametrize(("key", "n_parameters"), [("n002", 9), ("n10", 16)])
def test_the_users_hypotheses_of_several_cascades(make, users_settings, key, n_parameters, tmp_path):
    """Built upon an exported cascade, as their load_dir wants; the cluster's paths are opened in another place."""
    detector = hexagonal(7, 10)
    export = components.save(
        hypothesis.build(low_memory(make), detector, cascade_trafo(make)), tmp_path / "models_0000"
    )
    asked = []

    def open_base(load_dir):
        asked.append(load_dir)
        return components.load(export / load_dir.rpartition("/")[2], detector)

    source = hypothesis.build(users_settings(key), detector, open_base=open_base)
    assert len(source.parameter_names) == n_parameters and len(asked) == 2
    assert not any(p.requires_grad for p in source.parameters())
    parameters = make.cascades(dtype=torch.float32)
    parameters = torch.cat([parameters, torch.full((1, 2, n_parameters - 7), 100.0)], -1)
    e = source.expect(parameters, make.random_events(n_doms=70, dtype=torch.float32))
    assert torch.isfinite(e.rate).all() and (e.charge > 0).all()


def low_memory(make):
    """The users' small network, as they trained it."""
    config = {
        "num_filters_list": [25, 100, 100, 100, 100, 42],
        "use_residual_list": [True] * 5 + [False],
        "time_reference": "vertex",
    }
    return make.both({"model_class": "DefaultCascadeModel", "config": config})


# ------------------------------------------------------------------------------------------- rows of cascades


def test_starting_cascades_are_where_simulation_has_them(make, detector):
    settings = Hypothesis(kind="cascades", n_cascades=4)
    drawn = [simulated.draw(np.random.default_rng(seed), settings, detector) for seed in range(3)]
    source = make.source(starting(4), detector)
    parameters = torch.tensor(np.stack([d.parameters for d in drawn]))[None]
    found = source.cascades(parameters)
    np.testing.assert_allclose(found[:, 0].transpose(0, 1), np.stack([d.cascades for d in drawn]), rtol=1e-12)


def test_equidistant_cascades_are_where_simulation_has_them(make, detector):
    settings = Hypothesis(kind="track", n_cascades=10)
    drawn = [simulated.draw(np.random.default_rng(seed), settings, detector) for seed in range(20)]
    source = make.source(TRACK, detector)
    assert source.parameter_names == tuple(
        n.removeprefix("track_") for n in simulated.parameter_names(settings)
    )
    parameters = torch.tensor(np.stack([d.parameters for d in drawn]))[None]
    found = source.cascades(parameters)[:, 0].transpose(0, 1).numpy()
    np.testing.assert_allclose(found, np.stack([d.cascades for d in drawn]), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("zenith", [0.0, math.pi, math.pi / 2, 1e-7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_direction_gives_nan(make, detector, zenith, dtype):
    source = make.source(TRACK, detector)
    row = [20.0, -30.0, 40.0, zenith, 0.0, 10000.0, *[1e4] * 10]
    parameters = torch.tensor([[row]], dtype=dtype, requires_grad=True)
    cascades = source.cascades(parameters)
    data = make.observation([(0, 3, 10400.0, 2.0)], dtype=dtype)
    e = source.expect(parameters, data)
    (gradient,) = torch.autograd.grad(e.charge.sum() + e.rate.sum() + cascades.sum(), parameters)
    assert torch.isfinite(cascades).all() and torch.isfinite(gradient).all()


def test_entry_into_the_cylinder():
    cylinder = Cylinder(600.0, 500.0)

    def entry(position, zenith, azimuth):
        return float(
            cylinder.entry(
                torch.tensor(position).double(), direction(*torch.tensor([zenith, azimuth]).double())
            )
        )

    assert entry([0.0, 0.0, 0.0], math.pi / 2, 0.0) == pytest.approx(-600.0)
    assert entry([0.0, 0.0, 100.0], 0.0, 0.0) == pytest.approx(-400.0)  # from above
    assert entry([0.0, 0.0, 100.0], math.pi, 0.0) == pytest.approx(-600.0, abs=1e-6)  # from below
    assert entry([0.0, 900.0, 0.0], math.pi / 2, 0.0) == math.inf  # passes by
    assert entry([0.0, 0.0, 900.0], math.pi / 2, 0.3) == math.inf


def test_far_cascades_fade_and_negative_energies_are_none(make, detector):
    source = make.source(TRACK, detector)
    far = torch.tensor([[[0.0, 0.0, 0.0, math.pi / 2, 0.0, 10000.0, *[1e4] * 10]]]).double()
    far[0, 0, 1] = 699.0  # beside the cylinder, at the edge of where light may come from
    assert (source._all(far)[..., 5] < 100.0).all()
    far[0, 0, 1] = 701.0
    assert (source._all(far)[..., 5] == 0.0).all()
    near = far.clone()
    near[0, 0, 1] = 10.0
    near[0, 0, 6] = -5.0
    assert source._all(near)[0, 0, 0, 5] == 0.0 and (source._all(near)[1:, 0, 0, 5] == 1e4).all()


def test_neighbours_may_share_an_energy(make, detector):
    settings = {**TRACK, "config": {**TRACK["config"], "energies_per_group": 4}}
    source = make.source(settings, detector)
    assert source.parameter_names[6:] == tuple(f"cascade_{i:05d}_energy" for i in range(3))
    parameters = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 0.0, 10000.0, 1.0, 2.0, 3.0]]]).double()
    assert source.cascades(parameters)[:, 0, 0, 5].tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 2


def test_more_cascades_than_fit_are_cut_with_a_warning(make, detector, caplog):
    settings = {**TRACK, "config": {**TRACK["config"], "max_num_cascades": 500}}
    assert make.source(settings, detector).n_cascades == 104
    assert "no more than 104" in caplog.text


def test_a_row_of_cascades_is_the_sum_of_its_parts(make, detector):
    source = make.source(make.both(starting(5)), detector)
    extra = torch.tensor([[1e4, 10.0, 2e4, 25.0, 5e3, 40.0, 3e4, 60.0]] * 2).double()
    parameters = torch.cat([make.cascades()[0], extra], -1)[None]
    data = make.random_events(seed=3)
    parts = dict(source.parts(parameters, data))
    assert list(parts) == [*(f"cascade/cascade_{i:05d}" for i in range(5)), "noise"]
    whole = source.expect(parameters, data)
    torch.testing.assert_close(sum(p.rate for p in parts.values()), whole.rate)
    torch.testing.assert_close(sum(p.charge for p in parts.values()), whole.charge)


def test_only_the_nearest_cascades(make, detector):
    source, pruned = (make.source(starting(30, nearest_cascades=k), detector) for k in (None, 12))
    extra = torch.tensor([[v for i in range(29) for v in (1e3, 20.0 * (i + 1))]] * 2).double()
    parameters = torch.cat([make.cascades()[0], extra], -1)[None]
    data = make.random_events(seed=3)
    exact, near = source.expect(parameters, data), pruned.expect(parameters, data)
    lost = (exact.charge - near.charge) / exact.charge
    assert (lost >= -1e-12).all() and 0 < lost.max() < 0.2


def test_the_truth_with_noise_has_nothing_to_learn(detector):
    for settings in (
        model_settings(),
        model_settings(TRACK),
        model_settings(starting(3), ice="amanda", systematics=0.1),
    ):
        source = hypothesis.build(settings, detector)
        assert not list(source.parameters())
    assert source.bases["cascade"].bases["cascade"].settings.systematics == 0.1


def test_cascades_spread_around_the_point_nearest_to_the_origin(make, detector):
    settings = {
        "model_class": "DefaultMultiCascadeModel",
        "config": {"num_cascades": 11},
        "multi_source_bases": {"cascade": {"model_class": "DefaultCascadeModel", "config": make.small}},
    }
    names = [*make.standard().names[:5], "time", *(f"cascade_{i:04d}_log_energy" for i in range(11))]
    source = make.source(settings, detector, make.standard(names))
    row = torch.tensor(
        [[[300.0, 0.0, 50.0, math.pi / 2, 0.0, 10000.0, *[math.log(101.0)] * 11]]], dtype=torch.float64
    )
    found = source.cascades(row)[:, 0, 0]
    np.testing.assert_allclose(found[:, 0], np.linspace(500, -500, 11), atol=1e-4)
    np.testing.assert_allclose(found[:, 5], 100.0)
    np.testing.assert_allclose(found[0, 6], 10000.0 - 200.0 / 0.299792458)
    assert source.bases["cascade"].trafo.log[5]


def test_systematics_are_common_to_a_row_of_cascades(make, detector):
    """Further parameters stand behind the others; they are inputs, and the DOMs' efficiency a factor."""
    config = {
        **make.small,
        "additional_label_names": ["DOMEfficiency"],
        "snowstorm_parameter_names": [["phase_{:02d}", 2]],
        "scale_charge_by_global_dom_efficiency": True,
    }
    base = {"model_class": "DefaultCascadeModel", "config": config}
    further = ("DOMEfficiency", "phase_00", "phase_01")
    names = [*make.standard().names, "cascade_00001_energy", "cascade_00001_distance", *further]
    source = make.source(starting(2, base), detector, make.standard(names))
    assert source.parameter_names == tuple(names)
    data, values = make.random_events(), torch.tensor([[1e4, 50.0, 1.0, 0.3, -0.2]] * 2).double()
    parameters = torch.cat([make.cascades()[0], values], -1)[None].requires_grad_(True)
    charge = source.expect(parameters, data).charge
    (gradient,) = torch.autograd.grad(charge.sum(), parameters)
    assert (gradient[..., -3:] != 0).all()
    parameters = parameters.detach()
    parameters[..., -3] = 0.0  # blind DOMs, whatever the network says
    assert (source.expect(parameters, data).charge == 0.0).all()


def test_settings_of_the_time_mixture_are_inherited(make, detector):
    """`decoder_settings` hold for all levels below that have none of their own."""
    config = {**make.small, "num_filters_list": [6, 8, 8]}
    settings = make.both({"model_class": "DefaultCascadeModel", "config": config})
    settings["decoder_settings"] = {"mixture": [{"family": "gamma", "count": 2}]}
    source = make.source(settings, detector, cascade_trafo(make))
    assert source.bases["cascade"].mixture.components[0].family == "gamma"
