"""Start values by name, with what is missing filled in; what is done to events before a fit; events picked out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from likelihood_doubles import silent

from hpcreco.experiments.icecube.reconstruct import seeds
from hpcreco.experiments.icecube.reconstruct.prepare import Preparation, bright, merged, with_gaps, without
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.settings import settings
from hpcreco.experiments.icecube.reconstruct.space import Space, SpaceError

NAMES = (
    "cascade_x",
    "cascade_y",
    "cascade_z",
    "cascade_zenith",
    "cascade_azimuth",
    "cascade_energy",
    "cascade_time",
)
PAIR = (*NAMES, "cascade_cascade_00001_energy", "cascade_cascade_00001_distance")
F64 = torch.float64


def test_columns_are_found_by_role_name_and_mapping():
    values = np.arange(14.0).reshape(2, 7)
    np.testing.assert_array_equal(seeds.from_columns(values, seeds.ROLES, NAMES), values)
    np.testing.assert_array_equal(seeds.from_columns(values[:, ::-1], NAMES[::-1], NAMES), values)
    names = ("a", "b", "c", "d", "e", "f", "g")
    mapping = dict(zip(seeds.ROLES, names, strict=True))
    np.testing.assert_array_equal(seeds.from_columns(values, seeds.ROLES, names, mapping=mapping), values)


def test_what_is_missing_is_filled_in_or_refused():
    values = np.arange(7.0)[None].copy()
    values[0, 5] = np.nan
    special = {"cascade_cascade_00001_energy": 1e4, "cascade_cascade_00001_distance": 50.0}
    found = seeds.from_columns(values, seeds.ROLES, PAIR, missing=1.0, missing_by_name=special)
    np.testing.assert_array_equal(found[0, 5:], [1.0, 6.0, 1e4, 50.0])
    short = {"cascade_00001_energy": 1e4, "cascade_00001_distance": 50.0}  # as the users' configs name them
    again = seeds.from_columns(values, seeds.ROLES, PAIR, missing=1.0, missing_by_name=short)
    np.testing.assert_array_equal(again, found)
    with pytest.raises(seeds.SeedError, match="cascade_energy for 1 of 1 events.*seed_missing_value"):
        seeds.from_columns(values, seeds.ROLES, PAIR, missing_by_name=special)


def test_randomised_seeds_scatter_by_the_width_and_repeat():
    space = Space.of(("a", "b"), fixed=("b",))
    seed = torch.zeros(500, 2, dtype=F64)
    first = seeds.randomised(seed, space, 2, 0.3, torch.Generator().manual_seed(1))
    again = seeds.randomised(seed, space, 2, 0.3, torch.Generator().manual_seed(1))
    assert float(first[0][:, 0].std()) == pytest.approx(0.3, rel=0.15)
    assert (first[0][:, 1] == 0).all()
    assert torch.equal(first[1], again[1]) and not torch.equal(first[0], first[1])


def test_the_grid_of_directions_covers_the_sky():
    grid = np.array(seeds.grid())
    z = np.cos(grid[:, 0])
    vectors = np.stack(
        [np.sin(grid[:, 0]) * np.cos(grid[:, 1]), np.sin(grid[:, 0]) * np.sin(grid[:, 1]), z], 1
    )
    assert len(grid) == 12
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-12)
    closest = (vectors @ vectors.T - 2 * np.eye(12)).max(1)
    assert np.degrees(np.arccos(closest)).min() > 45


def test_wrong_parameter_names_are_refused():
    with pytest.raises(SpaceError, match="no parameter 'c'; it has: a, b"):
        Space.of(("a", "b"), fixed=("c",))
    with pytest.raises(SpaceError, match="boundaries of a"):
        Space.of(("a", "b"), boundaries={"a": (1.0, 0.0)})


def test_the_users_settings_are_understood():
    raw = {
        "reco_output_file": "../data/reconstruction.hdf5",
        "seed": "MonopodFit4_PartialExclusion",
        "seed_parameter_names": ["x", "y", "z", "zenith", "azimuth", "energy", "time"],
        "seed_missing_value": 1.0,
        "seed_missing_value_dict": None,
        "reco_optimizer_interface": "scipy",
        "scipy_optimizer_settings": {"method": "BFGS", "options": {}},
        "tf_optimizer_settings": {"method": "bfgs_minimize", "x_tolerance": 0.001},
        "minimize_parameter_default_value": True,
        "minimize_parameter_dict": {"cascade_time": False},
    }
    found = settings(raw)
    assert found.seed == ("MonopodFit4_PartialExclusion",)
    assert found.fixed(NAMES) == ("cascade_time",)
    from hpcreco.config import ConfigError

    with pytest.raises(ConfigError, match="reconstruction_settings.seeed: unknown key; did you mean 'seed'"):
        settings({"seeed": "x"})


def lit(dtype=F64):
    """Two events on three DOMs; the first has a DOM of 500 PE, and a gap on the second DOM."""
    charge = torch.tensor([500.0, 1, 2, 4, 1, 1], dtype=dtype)
    time = torch.tensor([10.0, 5, 8, 30, 1, 2], dtype=dtype)
    event, dom = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 1, 1, 1, 2, 2])
    gaps = {
        "gap_start": torch.tensor([100.0, 50.0], dtype=dtype),
        "gap_stop": torch.tensor([200.0, 60.0], dtype=dtype),
        "gap_event": torch.tensor([1, 0]),
        "gap_dom": torch.tensor([0, 1]),
    }
    return replace(silent(2), charge=charge, time=time, event=event, dom=dom, **gaps)


def test_bright_doms_and_doms_with_gaps_go_with_their_pulses():
    data = lit()
    assert bright(data).tolist() == [[True, False, False], [False] * 3]
    assert with_gaps(data).tolist() == [[False, True, False], [True, False, False]]
    cut = without(data, bright(data))
    assert cut.charge.tolist() == [1, 2, 4, 1, 1]
    assert cut.usable.tolist() == [[False, True, True], [True] * 3]
    whole = Preparation(bright_doms=True, partial_exclusion=False)(data)
    assert whole.charge.tolist() == [1, 1] and len(whole.gap_start) == 0
    # a bright DOM is bright only beside dimmer ones that count
    assert not bright(without(data, bright(data))).any()


def test_merged_pulses_keep_charge_and_mean_time():
    data = merged(lit(), 10.0)
    assert data.charge.tolist() == [500, 3, 4, 2]
    assert data.time.tolist() == [10.0, 7.0, 30.0, 1.5]
    assert data.event.tolist() == [0, 0, 0, 1] and data.dom.tolist() == [0, 1, 1, 2]
    assert torch.equal(data.dom_charge, lit().dom_charge)
    untouched = merged(lit(), 0.5)
    assert untouched.time.tolist() == lit().time.tolist()


def test_events_are_taken_in_any_order_and_repeated():
    data = lit()
    some = take(data, torch.tensor([1, 0, 1]))
    assert some.event.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert some.charge.tolist() == [1, 1, 500, 1, 2, 4, 1, 1]
    assert some.gap_event.tolist() == [0, 1, 2] and some.gap_start.tolist() == [100, 50, 100]
    assert torch.equal(some.dom_charge, data.dom_charge[[1, 0, 1]])
    none = take(data, torch.zeros(0, dtype=torch.int64))
    assert none.n_events == 0 and len(none.charge) == 0
