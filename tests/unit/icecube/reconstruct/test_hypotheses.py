"""Reconstruction with networks of pairs, of tracks and of an ensemble: fit, report and picture of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcreco import shards
from hpcreco.cli import main
from hpcreco.experiments.icecube import components, files, hypothesis
from hpcreco.experiments.icecube.reconstruct.model import standard_trafo
from hpcreco.experiments.icecube.sources.cascade import CASCADE
from hpcreco.experiments.icecube.yinf import YINF

NETWORK = {"num_filters_list": [6, 8, 10], "num_latent_models": 2, "use_residual_list": [True, True, False]}
KINDS = {
    "pairs": ("cascade", "StartingVariableMultiCascadeModel", {"num_cascades": 2}),
    "tracks": (
        "track",
        "TrackEquidistantCascadeModel",
        {"max_num_cascades": 4, "cascade_spacing": 40, "cylinder_radius": 125, "cylinder_extension": 76.5},
    ),
    "cascades": ("cascade", None, {}),
}


def simulated(folder, kind):
    preset = {"pairs": "tiny-pairs", "tracks": "tiny-tracks", "cascades": "tiny"}[kind]
    arguments = ["--preset", preset, "-n", "3", "--seed", "4", "--detector", "hex7x4", "--out", str(folder)]
    changes = ["hypothesis.energy=[5e3,2e4]", "hypothesis.radius=60", "hypothesis.half_height=20"]
    if kind == "tracks":
        changes += ["hypothesis.n_cascades=4", "hypothesis.spacing=40"]
    assert main(["simulate", "icecube", *arguments, *(p for c in changes for p in ("--set", c))]) == 0
    return folder / "pulses-00000.h5"


def network(kind, path, seed):
    """Untrained networks of a hypothesis, for the detector of a shard."""
    name, over, config = KINDS[kind]
    with shards.Shard(path) as shard:
        names = shard.columns("event", "parameters")
    trafo = standard_trafo([*CASCADE])
    cascade = {"model_class": "DefaultCascadeModel", "config": NETWORK}
    if over:
        cascade = {"model_class": over, "config": config, "multi_source_bases": {"cascade": cascade}}
    settings = {
        "model_class": "IndependentMultiSource",
        "config": {"sources": {name: name, "noise": "noise"}},
        "multi_source_bases": {name: cascade, "noise": {"model_class": "DefaultNoiseModel"}},
    }
    torch.manual_seed(seed)
    source = hypothesis.build(settings, files.of_shard(path), standard_trafo(names))
    assert source.parameter_names == tuple(names) and len(trafo.names) == 7
    return source


def reconstructed(model, path, out, *more):
    size = ["--batch-size", "3", "--set", "batched_optimizer_settings.max_evaluations=40"]
    assert main(["icecube", "reconstruct", str(model), "-i", str(path), "-o", str(out), *size, *more]) == 0
    with shards.Shard(out / "yinf-00000.h5", YINF) as made:
        tables = {name: made.read_events(0, made.n_events, name) for name in made.tables}
        return tables, made.columns("fit", "parameters")


@pytest.mark.parametrize("kind", ["pairs", "tracks"])
def test_several_cascades_from_fit_to_picture(kind, tmp_path, capsys):
    path = simulated(tmp_path, kind)
    components.save(network(kind, path, 1), tmp_path / "export" / "models_0000")
    changes = ["--covariance", "--scans", "--set", "llh_scans.points=5", "--set", "seed_missing_value=1e3"]
    for model in (tmp_path / "export", "truth"):
        out = tmp_path / f"reco_{getattr(model, 'name', model)}"
        tables, names = reconstructed(model, path, out, "--seed", "smeared", *changes)
        fit = tables["fit"]
        assert len(names) == (9 if kind == "pairs" else 10)
        assert (fit["loss"] <= fit["seed_loss"]).all() and np.isfinite(fit["parameters"]).all()
        assert tables["covariance"]["hessian"].shape == (3, len(names) ** 2)
        assert main(["report", str(out)]) == 0
        energies = [k for k, name in enumerate(names) if name.endswith("energy")]
        low = float((out / "report/resolution.csv").read_text().splitlines()[-1].split(",")[0])
        assert low <= fit["truth"][:, energies].sum(1).min()  # binned by the energy of all cascades
        assert main(["display", str(out / "yinf-00000.h5"), "-o", str(tmp_path), "--doms", "1"]) == 0
    assert "cascade_00001_energy" in capsys.readouterr().out
    if kind == "pairs":  # the likelihood that drew them does better than the seeds by far, and than the truth
        assert (fit["loss"] < fit["seed_loss"] - 1).all()
        assert (fit["loss"] <= fit["truth_loss"] + 0.5).all()


def test_a_pair_starts_from_the_data_where_the_rest_is_given(tmp_path):
    path = simulated(tmp_path, "pairs")
    given = "seed_missing_value_dict={cascade_00001_energy: 8e3, cascade_00001_distance: 30}"
    hold = ["--set", "minimize_parameter_default_value=false", "--set", given]
    tables, names = reconstructed("truth", path, tmp_path / "reco", "--seed", "data", *hold)
    found = dict(zip(names, tables["fit"]["parameters"][0], strict=True))
    assert found["cascade_cascade_00001_energy"] == 8e3
    assert found["cascade_cascade_00001_distance"] == 30


def test_the_losses_of_an_ensemble_add_up_and_its_parts_must_match(tmp_path, capsys):
    path = simulated(tmp_path, "cascades")
    for number in (0, 1):
        source = network("cascades", path, number)
        components.save(source, tmp_path / f"alone{number}" / "models_0000")
        components.save(source, tmp_path / "both" / f"models_{number:04d}")
    hold = ["--seed", "smeared", "--set", "minimize_parameter_default_value=false"]
    losses = {
        name: reconstructed(tmp_path / name, path, tmp_path / f"reco_{name}", *hold)[0]["fit"]["loss"]
        for name in ("alone0", "alone1", "both")
    }
    np.testing.assert_allclose(losses["both"], losses["alone0"] + losses["alone1"], rtol=1e-12)
    fit = reconstructed(tmp_path / "both", path, tmp_path / "fits", "--seed", "smeared", "--covariance")[0][
        "fit"
    ]
    assert (fit["loss"] < fit["seed_loss"]).all()
    assert main(["report", str(tmp_path / "fits"), "--no-pictures"]) == 0
    other = network("pairs", simulated(tmp_path / "pairs", "pairs"), 0)
    components.save(other, tmp_path / "both" / "models_0002")
    assert (
        main(["icecube", "reconstruct", str(tmp_path / "both"), "-i", str(path), "-o", str(tmp_path / "x")])
        == 2
    )
    assert "number 2 has" in capsys.readouterr().err


def test_samples_of_the_direction_come_with_distributions_on_the_sphere(tmp_path):
    path = simulated(tmp_path, "cascades")
    more = ["--seed", "x_parameters", "--events", "0:1", "--covariance", "--mcmc", "--set", "mcmc.method=hmc"]
    more += ["--set", "mcmc.walkers=4", "--set", "mcmc.steps=20", "--set", "mcmc.burn_in=10"]
    tables, _ = reconstructed("truth", path, tmp_path / "reco", *more)
    assert tables["chain"]["parameters"].shape == (80, 7)
    sphere = tables["sphere"]
    assert sphere["kent"].shape == (1, 5) and np.isfinite(sphere["log_density"]).all()
    ordered = dict(zip(("von_mises_fisher", "gauss", "kent", "fb8"), sphere["log_density"][0], strict=True))
    assert ordered["von_mises_fisher"] <= ordered["kent"] + 1e-6
