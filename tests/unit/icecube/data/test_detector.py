"""Idealised and real geometries: the numbers that describe IceCube, files, digests."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco.experiments.icecube import arrays
from hpcreco.experiments.icecube import detector as detectors
from hpcreco.experiments.icecube.detector import Detector, DetectorError


def nearest_string(array: Detector) -> np.ndarray:
    xy = array.positions[:78, 0, :2]
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1)


def test_hex86_has_the_numbers_of_its_definition():
    array = arrays.hex86()
    assert array.shape == (86, 60) and array.n_doms == 5160
    assert array.radius == pytest.approx(572.8, abs=0.05)
    z = array.positions[:78, :, 2]
    assert (z.max(), z.min()) == (500.0, -503.0)
    assert np.allclose(nearest_string(array), 125.0)
    core = array.positions[78:]
    assert core[..., 2].max() == 190.0 and core[..., 2].min() == -500.0
    assert np.allclose(np.hypot(core[:6, 0, 0], core[:6, 0, 1]), 72.168, atol=1e-3)
    assert array.dead.sum() == 77 and (array.noise_rate[array.dead] == 0).all()
    assert set(np.unique(array.efficiency[:78])) == {1.0} and set(np.unique(array.efficiency[78:])) == {
        np.float32(1.35)
    }
    alive = array.noise_rate[:78][~array.dead[:78]]
    assert alive.mean() == pytest.approx(5.5e-7, rel=0.03) and alive.std() == pytest.approx(1.0e-7, rel=0.1)
    assert alive.min() >= 4e-7 and alive.max() <= 9e-7
    assert array.noise_rate[78:][~array.dead[78:]].mean() == pytest.approx(7.5e-7, rel=0.03)


def test_the_digest_is_the_same_everywhere():
    """Shards, transformations and models name their detector by it: a change would orphan them all."""
    assert arrays.hex86().sha256.startswith("649d425149b5")
    assert arrays.hexagonal(7, 10).sha256.startswith("4bd2007e1fcb")


def test_other_sizes_and_seeds():
    array = arrays.named("hex19x4")
    assert array.shape == (19, 4) and array.radius == pytest.approx(250.0)
    assert array.positions[..., 2].sum() == pytest.approx(0.0)
    other = arrays.named("hex19x4@3")
    assert np.array_equal(other.positions, array.positions) and other.sha256 != array.sha256


def test_artefact_round_trip_and_what_is_refused(tmp_path, small):
    path = detectors.write(small, tmp_path)
    assert path.name == f"detector-{small.sha256[:12]}.h5"
    back = detectors.beside(tmp_path / "pulses-0.h5", small.sha256)
    for name in ("positions", "efficiency", "noise_rate", "dead"):
        assert np.array_equal(getattr(back, name), getattr(small, name))
    assert back.sha256 == small.sha256 and arrays.named(str(path)).sha256 == small.sha256
    with pytest.raises(DetectorError, match="not beside it"):
        detectors.beside(tmp_path / "x.h5", "0" * 64)
    path.rename(tmp_path / detectors.file_name("1" * 64))
    with pytest.raises(DetectorError, match="is not the detector of"):
        detectors.beside(tmp_path / "x.h5", "1" * 64)
    for wrong in ("hex0x4", "hex86@x", "hexagon", str(tmp_path / "no.geo")):
        with pytest.raises(DetectorError):
            arrays.named(wrong)


def test_a_string_with_missing_doms_is_filled_with_dead_ones(tmp_path):
    file = tmp_path / "array.txt"
    file.write_text("1 1 0 0 20\n1 2 0 0 10\n1 3 0 0 0\n2 1 100 0 20\n2 3 100 0 0\n")
    array = arrays.named(str(file))
    assert array.shape == (2, 3) and array.dead.tolist() == [[False] * 3, [False, True, False]]
    assert array.positions[1, 1].tolist() == [100.0, 0.0, 10.0] and array.efficiency[1, 1] == 0
    file.write_text("1 1 0 0 20\n1 1 0 0 10\n")
    with pytest.raises(DetectorError, match="twice"):
        arrays.named.__wrapped__(str(file))  # past the cache


def test_the_real_array(public_data):
    """Section 15 of the domain's numbers: distances, spacing, extent, missing and high-efficiency DOMs."""
    folder = public_data / "icecube" / "geometry"
    array = arrays.named(f"{folder / 'detector_config.txt'},{folder / 'icecube86.parquet'}")
    assert array.shape == (86, 60)
    nearest = nearest_string(array)
    assert nearest.mean() == pytest.approx(119.8, abs=0.1)
    assert (nearest.min(), nearest.max()) == (pytest.approx(97.2, abs=0.1), pytest.approx(125.3, abs=0.1))
    assert np.median(-np.diff(array.positions[:78, :, 2], axis=1)) == pytest.approx(17.02, abs=0.01)
    z = array.positions[..., 2]
    assert (z.max(), z.min()) == (pytest.approx(524.6, abs=0.1), pytest.approx(-512.8, abs=0.1))
    assert array.radius == pytest.approx(601.2, abs=0.1)
    # 77 on the list of bad DOMs, and 2 whose efficiency the table does not know
    assert array.dead.sum() == 79 and (array.efficiency > 1.2).sum() == 399
    table = arrays.named(str(folder / "icecube86.parquet"))
    off = np.linalg.norm(table.positions - array.positions, axis=2)
    assert (
        off[~array.dead].max() < 1e-3 and np.median(off[array.dead]) < 0.5
    )  # the dead ones from their neighbours
    assert np.array_equal(table.dead, array.dead)
    geo = arrays.named(str(folder / "icecube.geo"))
    shift = (geo.positions - array.positions).reshape(-1, 3)
    assert np.ptp(shift, axis=0).max() < 1e-4
