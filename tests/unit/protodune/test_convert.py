import argparse

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import convert, legacy, parsed, simulate
from hpcreco.experiments.protodune.xy import XY
from hpcreco.experiments.protodune.yinf import YINF


def command(module, *arguments):
    """Run a verb as the command line does; its exit code."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parsed")
    assert (
        command(simulate, "--preset", "tiny", "--files", 2, "--seed", 1, "--energy", "--npz", "--out", folder)
        == 0
    )
    return folder


def digests(folder):
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with shards.Shard(path) as shard:
            found[path.name] = shard.digest
    return found


def test_simulated_files_are_valid_and_small(simulated):
    schemas = {"wire": parsed.WIRE, "mcbeamcosmic": parsed.PARTICLES}
    files = sorted(simulated.glob("*.h5"))
    assert len(files) == 10
    for path in files:
        product = path.name.split("_")[3].split("-")[0]
        assert shards.validate(path, schemas.get(product, parsed.TRUTH)) == []
        assert path.stat().st_size < 1e6


def test_simulation_is_reproducible_and_resumes(simulated, tmp_path):
    options = ("--preset", "tiny", "--files", 2, "--energy", "--out", tmp_path)
    assert command(simulate, *options, "--seed", 1) == 0
    assert digests(tmp_path) == digests(simulated)
    files = sorted(tmp_path.glob("*.h5"))
    times = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()
    assert command(simulate, *options, "--seed", 1, "--dry-run") == 0
    assert not files[0].exists()
    assert command(simulate, *options, "--seed", 1) == 0
    # the batch of the missing file is made again, the other is left alone
    untouched = {path for path in files if "_002_" in path.name}
    assert {path for path in files if path.stat().st_mtime_ns == times[path]} == untouched
    assert digests(tmp_path) == digests(simulated)
    assert command(simulate, *options, "--seed", 2) == 0  # another seed: stale, all made again
    assert not set(digests(tmp_path).values()) & set(digests(simulated).values())


def test_first_index_continues_a_sample(simulated, tmp_path):
    assert (
        command(
            simulate, "--preset", "tiny", "--files", 1, "--first-index", 2, "--seed", 1, "--out", tmp_path
        )
        == 0
    )
    expected = {
        name: digest
        for name, digest in digests(simulated).items()
        if "_002_" in name and "_energy" not in name
    }
    assert digests(tmp_path) == expected


def test_a_preset_refuses_types_it_cannot_make(tmp_path):
    with pytest.raises(simulate.SimulationError, match="small"):
        command(simulate, "--preset", "tiny", "--types", "Electron", "--seed", 1, "--out", tmp_path)


def test_energy_is_three_times_the_energy(simulated):
    with (
        parsed.open_parsed(simulated / "reco_BeamCosmic_001_energy-TPC1.h5") as energy,
        parsed.open_parsed(simulated / "reco_BeamCosmic_001_depo-TPC1.h5") as depo,
    ):
        np.testing.assert_allclose(energy.truth(0).values, 3 * depo.truth(0).values, rtol=1e-6)


def test_parsed_files_go_both_ways(simulated, tmp_path):
    there, back = tmp_path / "npz", tmp_path / "h5"
    assert command(convert, simulated, "-o", there) == 0
    names = sorted(path.name for path in there.glob("*.npz"))
    assert len(names) == 10
    for name in names:
        if "mcbeamcosmic" in name:  # the original's are pickles
            continue
        assert (there / name).read_bytes() == (simulated / "npz" / name).read_bytes()
    assert command(convert, there, "-o", back) == 0
    for path in sorted(set(back.glob("*.h5")) - set(back.glob("*mcbeamcosmic*"))):
        with parsed.open_parsed(path) as copy, parsed.open_parsed(simulated / path.name) as original:
            assert copy.n_events == original.n_events == 2
            for event in range(2):
                read = "waveform" if "wire" in path.name else "truth"
                found, expected = getattr(copy, read)(event), getattr(original, read)(event)
                np.testing.assert_array_equal(found[0], expected[0])
                np.testing.assert_array_equal(found[1], expected[1])


def test_one_bad_file_fails_alone_and_is_named(simulated, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    good = "reco_BeamCosmic_001_depo-TPC1.h5"
    (source / good).write_bytes((simulated / good).read_bytes())
    (source / good.replace("001", "009")).write_bytes((simulated / good).read_bytes()[:2000])
    assert command(convert, source, "-o", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "convert.json",
        good.replace(".h5", ".npz"),
    ]
    assert "_009_" in capsys.readouterr().err


def test_convert_refuses_to_overwrite_its_input_and_unknown_files(simulated, tmp_path):
    (tmp_path / "note.txt").touch()
    with pytest.raises(convert.ConvertError, match="nothing to convert"):
        command(convert, tmp_path, "-o", tmp_path / "out")
    with pytest.raises(convert.ConvertError, match="no such file"):
        command(convert, tmp_path / "absent.npz", "-o", tmp_path)


def legacy_xy(path, pickled):
    """A legacy xy file of three events, the second one empty."""
    rng = np.random.default_rng(4)
    events = [rng.integers(0, 200, (n, 3)) for n in (6, 0, 3)]
    number = np.repeat([0, 2], [6, 3])
    features = rng.random((9, 3)).astype(np.float32)
    x = np.concatenate([np.concatenate(events), number[:, None], features], axis=1, dtype=np.float32)
    truth = [np.concatenate([e[::2], np.full((len(e[::2]), 1), 7.5)], axis=1) for e in events]
    arrays = {"X": x, "Y": rng.random((9, 1)).astype(np.float32), "starts": np.array([0, 6, 6])}
    if pickled:
        ragged = np.empty(3, object)
        ragged[:] = truth
        arrays["Y_truth"] = ragged
    np.savez(path, **arrays)
    return arrays, truth


def test_legacy_xy_goes_both_ways(tmp_path):
    path = tmp_path / "batch2-reco_singleMu_004_xy-TPC1.npz"
    arrays, truth = legacy_xy(path, pickled=True)
    assert command(convert, path, "-o", tmp_path / "h5") == 1  # the pickle is refused
    assert command(convert, path, "-o", tmp_path / "h5", "--allow-pickle", "--y-type", "depo") == 0
    ours = tmp_path / "h5" / path.with_suffix(".h5").name
    assert shards.validate(ours, XY) == []
    with shards.Shard(ours, XY) as shard:
        assert shard.rows("voxels").tolist() == [6, 0, 3]
        assert shard.attributes["feature_names"] == ["U", "X", "V"]
        assert (shard.attributes["index"], shard.attributes["batch"], shard.attributes["tpc"]) == (4, 2, [1])
        assert shard.columns("voxels", "labels") == ("energy",)
        np.testing.assert_array_equal(shard.read(2, "voxels")["coords"], arrays["X"][6:, :3])
        np.testing.assert_array_equal(shard.read(2, "truth")["coords"], truth[2][:, :3])
    assert command(convert, ours, "-o", tmp_path / "npz") == 0
    again = tmp_path / "npz" / path.name
    with np.load(again, allow_pickle=False) as file:
        assert sorted(file.files) == ["X", "Y", "starts", "truth", "truth_starts"]
        for name in ("X", "Y", "starts"):
            np.testing.assert_array_equal(file[name], arrays[name])
        np.testing.assert_array_equal(file["truth"], np.concatenate(truth).astype(np.float32))
    assert command(convert, again, "-o", tmp_path / "h5b", "--y-type", "depo") == 0  # no pickle in ours
    assert digests(tmp_path / "h5b") == digests(tmp_path / "h5")


def test_legacy_xy_without_truth(tmp_path):
    path = tmp_path / "batch0-reco_protoDUNE_009_xy-TPC5.npz"
    arrays, _ = legacy_xy(path, pickled=False)
    np.savez(path, X=arrays["X"], starts=arrays["starts"])
    assert command(convert, path, "-o", tmp_path / "h5") == 0
    with shards.Shard(tmp_path / "h5" / path.with_suffix(".h5").name, XY) as shard:
        assert not shard.has("voxels", "labels") and not shard.has("truth")
        assert shard.attributes["y_type"] == "none"


def test_legacy_yinf_goes_both_ways(tmp_path):
    xy = tmp_path / "xy" / "batch2-reco_singleMu_004_xy-TPC1.h5"
    path = tmp_path / "epoch24-batch2-reco_singleMu_004_yinf-TPC1.npy"
    source = tmp_path / xy.with_suffix(".npz").name
    arrays, _ = legacy_xy(source, pickled=False)
    legacy.import_xy(source, xy)
    values = np.random.default_rng(5).random((1, 9, 1)).astype(np.float32)
    np.save(path, values)
    assert command(convert, path, "-o", tmp_path / "h5") == 1  # the xy shard is not beside it
    assert command(convert, path, "-o", tmp_path / "h5", "--xy", xy.parent) == 0
    ours = tmp_path / "h5" / path.with_suffix(".h5").name
    assert shards.validate(ours, YINF) == []
    with shards.Shard(ours, YINF) as shard:
        assert shard.attributes["epoch"] == 24
        np.testing.assert_array_equal(shard.read(2, "voxels")["probability"], values[0, 6:, 0])
        np.testing.assert_array_equal(shard.read(0, "voxels")["coords"], arrays["X"][:6, :3])
    assert command(convert, ours, "-o", tmp_path / "npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / path.name), values)
    np.save(path, values[:, :5])
    with pytest.raises(legacy.LegacyError, match="do not belong together"):
        legacy.import_yinf(path, tmp_path / "other.h5", xy)


def test_real_and_public_files(public_data, tmp_path):
    data = public_data / "protodune"
    sources = [*data.glob("protodunehd-sp/*.tar.bz2"), data / "depos/bee-pion7GeV-event0.zip"]
    assert command(convert, *sources, "-o", tmp_path, "--event-type", "Pion") == 0
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == [
        "reco_singlePion_001_depo-TPC1.h5",
        "reco_singlePion_001_depoElectron-TPC1.h5",
        "reco_singlePion_001_wire-TPC1.h5",
        "reco_singlePion_40896_wire-TPC2.h5",
    ]
    for path in tmp_path.glob("*.h5"):
        assert shards.validate(path, parsed.WIRE if "wire" in path.name else parsed.TRUTH) == []
