"""Production of simulated samples: every event type in every TPC; hit and energy products as input of the tiler."""

import argparse
import json

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, parsed, simulate, tile
from hpcreco.experiments.protodune.simulation.generator import KINDS
from hpcreco.experiments.protodune.xy import XY


def command(module, *words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(word) for word in words]))


def jobs(*words):
    """Keys of the jobs that a command line makes."""
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    found = simulate.samples(parser.parse_args([*map(str, words), "--seed", "1", "--out", "x"]))
    return {
        (sample.event_type, index, tpc): sample.events
        for sample in found
        for index in range(sample.first_index, sample.first_index + sample.files)
        for tpc in sample.tpcs
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_can_be_made_in_all_six_tpcs(kind):
    made = jobs("--preset", "full", "--types", kind, "--files", 3, "--tpcs", *geometry.REAL_TPCS)
    assert set(made) == {(kind, index, tpc) for index in (1, 2, 3) for tpc in geometry.REAL_TPCS}
    assert set(made.values()) == {5 if kind == "BeamCosmic" else 100}


def test_the_full_preset_holds_all_types():
    made = jobs("--preset", "full")
    assert {key[0] for key in made} == set(KINDS)
    assert len(made) == 1000 * (6 + 3)


def test_single_particles_are_simulated_and_flagged_as_beam(tmp_path):
    words = ["--preset", "small", "--files", 1, "--events", 1, "--seed", 3, "--out", tmp_path]
    assert command(simulate, *words, "--types", "Mu", "Pion", "--tpcs", 1, 5) == 0
    for kind in ("Mu", "Pion"):
        for tpc in (1, 5):
            path = tmp_path / f"reco_single{kind}_001_wire-TPC{tpc}.h5"
            with parsed.open_parsed(path) as file:
                assert (file.attributes["event_type"], file.attributes["tpc"]) == (kind, tpc)
                assert tpc == 5 or len(file.waveform(0).tick) > 1000
        with shards.Shard(tmp_path / f"reco_single{kind}_001_mcbeamcosmic-TPC1.h5", parsed.PARTICLES) as file:
            assert file.read(0, "particles")["beam"].all()


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    words = ["--preset", "tiny", "--files", 1, "--seed", 1, "--hit", "--energy"]
    assert command(simulate, *words, "--out", folder / "parsed") == 0
    for x_type in ("wire", "hit"):
        options = ["-i", folder / "parsed", "-o", folder / x_type, "--x-type", x_type]
        assert command(tile, *options) == 0
    assert command(tile, "-i", folder / "parsed", "-o", folder / "depo", "--y-type", "depo,energy") == 0
    return folder


def opened(sample, name):
    (path,) = (sample / name).glob("*.h5")
    return shards.Shard(path, XY)


def test_hits_are_tiled_like_wires_and_keep_their_charge(sample):
    wire = parsed.open_parsed(sample / "parsed" / "reco_BeamCosmic_001_wire-TPC1.h5")
    hit = parsed.open_parsed(sample / "parsed" / "reco_BeamCosmic_001_hit-TPC1.h5")
    with wire, hit, opened(sample, "wire") as of_wire, opened(sample, "hit") as of_hit:
        assert of_hit.attributes["x_type"] == hit.product == "hit"
        for event in range(wire.n_events):
            per_channel = [
                np.bincount(samples.channel, weights=samples.value, minlength=2560)
                for samples in (wire.waveform(event), hit.waveform(event))
            ]
            np.testing.assert_allclose(*per_channel, rtol=1e-5, atol=1e-2)
            shared = [xy.read(event, "voxels", ["features"])["features"].sum(0) for xy in (of_wire, of_hit)]
            np.testing.assert_allclose(*shared, rtol=0.05)


def test_energy_comes_first_and_counts_the_three_planes(sample):
    with opened(sample, "wire") as energy, opened(sample, "depo") as depo:
        assert energy.attributes["y_type"] == "energy"
        assert depo.attributes["y_type"] == "depo"
        for event in range(energy.n_events):
            a, b = (xy.read(event, "voxels", ["labels"])["labels"] for xy in (energy, depo))
            np.testing.assert_allclose(a, 3 * b, rtol=1e-5)
            assert b.sum() > 0


def test_products_that_are_no_truth_are_refused(sample, tmp_path):
    for product in ("calo", "mcparticle", "wire"):
        with pytest.raises(tile.TileUsageError, match=rf"--y-type {product}.*energy, depo, depoElectron"):
            command(tile, "-i", sample / "parsed", "-o", tmp_path / "xy", "--y-type", product)


def test_the_run_report_tells_what_was_made(sample):
    report = json.loads((sample / "parsed" / "simulate.json").read_text())
    (job,) = report["jobs"]
    assert {"BeamCosmic-001-TPC1"} == {job["key"]}
