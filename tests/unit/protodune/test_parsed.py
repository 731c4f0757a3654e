import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import parsed
from hpcreco.experiments.protodune.parsed import npz

ATTRIBUTES = {
    "event_type": "Mu",
    "index": 3,
    "tpc": 1,
    "geometry": "pdsp",
    "geometry_digest": "0",
    "generator": "test",
}


def waveforms(rng, n, n_ticks=64, n_channels=40):
    key = np.sort(rng.choice(n_ticks * n_channels, n, replace=False))
    return parsed.Waveforms(key // n_channels, key % n_channels, rng.uniform(1, 9, n).astype(np.float32))


@pytest.fixture
def wire(tmp_path):
    """A wire file of three events, the second one empty, and what it should hold."""
    rng = np.random.default_rng(1)
    events = [waveforms(rng, 50), waveforms(rng, 0), waveforms(rng, 7)]
    path = tmp_path / "reco_singleMu_003_wire-TPC1.h5"
    with parsed.wire_writer(
        path, ATTRIBUTES | {"product": "wire", "n_ticks": 64, "n_channels": 40}
    ) as writer:
        for number, event in enumerate(events):
            parsed.append_waveform(writer, 10 + number, *event)
    return path, events


@pytest.fixture
def depo(tmp_path):
    rng = np.random.default_rng(2)
    events = [
        (
            rng.integers(0, 99, (n, 3)),
            rng.random(n),
            rng.integers(1, 2**31 - 1, n),
            rng.choice([11, -13, 2212], n),
        )
        for n in (20, 0, 5)
    ]
    path = tmp_path / "reco_singleMu_003_depo-TPC1.h5"
    with parsed.truth_writer(path, ATTRIBUTES | {"product": "depo"}) as writer:
        for number, event in enumerate(events):
            parsed.append_truth(writer, number, *event)
    return path, events


def same_waveforms(file, events):
    assert file.n_events == len(events)
    assert (file.n_ticks, file.n_channels) == (64, 40)
    for number, event in enumerate(events):
        for found, expected in zip(file.waveform(number), event, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_waveforms_survive_hdf5_and_npz(wire, tmp_path):
    path, events = wire
    with parsed.open_parsed(path) as file:
        same_waveforms(file, events)
        assert file.event_ids.tolist() == [10, 11, 12]
    legacy = tmp_path / "reco_singleMu_003_wire-TPC1.npz"
    npz.export_npz(path, legacy)
    with np.load(legacy) as arrays:
        assert arrays.files == ["arr_0", "arr_1", "arr_2"]
        assert arrays["arr_0"].shape == (64, 40)
    with parsed.open_parsed(legacy) as file:
        same_waveforms(file, events)
        assert file.attributes["tpc"] == 1


def test_truth_survives_hdf5_and_npz(depo, tmp_path):
    path, events = depo
    legacy = tmp_path / "reco_singleMu_003_depo-TPC1.npz"
    npz.export_npz(path, legacy)
    for source in (path, legacy):
        with parsed.open_parsed(source) as file:
            for number, (coords, values, track, pdg) in enumerate(events):
                truth = file.truth(number)
                assert truth.columns == ("energy",)
                np.testing.assert_array_equal(truth.coords, coords)
                np.testing.assert_array_equal(truth.values[:, 0], values.astype(np.float32))
                np.testing.assert_array_equal(truth.track_id, track)
                np.testing.assert_array_equal(truth.pdg, pdg)
    with np.load(legacy) as arrays:
        assert arrays["arr_0"].shape == (20, 6)


def test_equal_content_gives_equal_npz_bytes(wire, tmp_path):
    for name in ("a", "b"):
        npz.export_npz(wire[0], tmp_path / name / "reco_singleMu_003_wire-TPC1.npz")
    first, second = (
        (tmp_path / name / "reco_singleMu_003_wire-TPC1.npz").read_bytes() for name in ("a", "b")
    )
    assert first == second


def test_pickled_events_are_refused_unless_allowed(tmp_path):
    path = tmp_path / "reco_singleMu_003_depoElectron-TPC1.npz"
    rows = np.array([[1, 2, 3, 99.5]], dtype=object)
    np.savez(path, rows)
    with parsed.open_parsed(path) as file, pytest.raises(parsed.ParsedError, match="allow-pickle"):
        file.truth(0)
    with parsed.open_parsed(path, allow_pickle=True) as file:
        assert file.truth(0).values.tolist() == [[99.5]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((3, 5))}, "4 columns"),
        ({"arr_0": np.zeros((3, 4)), "arr_2": np.zeros((3, 4))}, "arr_0"),
        ({"X": np.zeros((3, 4))}, "arr_0"),
    ],
)
def test_npz_of_another_shape_is_named(tmp_path, arrays, message):
    path = tmp_path / "reco_singleMu_003_energy-TPC1.npz"
    np.savez(path, **arrays)
    with pytest.raises(parsed.ParsedError, match=message) as error, parsed.open_parsed(path) as file:
        file.truth(0)
    assert str(path) in str(error.value)


def test_damaged_npz_is_an_error_that_names_the_file(depo, tmp_path):
    legacy = tmp_path / "reco_singleMu_003_depo-TPC1.npz"
    npz.export_npz(depo[0], legacy)
    legacy.write_bytes(legacy.read_bytes()[:-200])
    with pytest.raises(parsed.ParsedError, match="reco_singleMu_003"), parsed.open_parsed(legacy) as file:
        file.truth(0)


def test_interrupted_npz_leaves_nothing(tmp_path):
    def arrays():
        yield np.zeros(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        npz.write_npz(tmp_path / "x.npz", arrays())
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused(tmp_path):
    path = tmp_path / "reco_Mu_001_mcbeamcosmic-TPC1.h5"
    with shards.ShardWriter(path, parsed.PARTICLES, ATTRIBUTES | {"product": "mcbeamcosmic"}):
        pass
    with pytest.raises(parsed.ParsedError, match="particles"):
        parsed.open_parsed(path)
