"""The experiment's own tracks and showers, from the original program's pickled lists."""

import numpy as np
import pytest

from hpcreco.experiments.protodune import calorimetry
from hpcreco.experiments.protodune.parsed import ParsedError


def write(path, *events):
    arrays = []
    for objects in events:
        array = np.empty((len(objects), 4), object)
        for number, entry in enumerate(objects):
            for column, value in enumerate(entry):
                array[number, column] = value
        arrays.append(array)
    np.savez_compressed(path, *arrays)
    return path


def test_objects_and_their_rows(tmp_path):
    track, shower = np.arange(18.0).reshape(3, 6), np.arange(12.0).reshape(2, 6) + 100
    path = write(
        tmp_path / "reco_singleMu_001_calo.npz",
        [["Track", 2, 812.5, track], ["Shower", 0, 33.0, shower], ["Track", 1, 5.0, []]],
        [],
    )
    full, empty = calorimetry.read(path, allow_pickle=True)
    assert full.kind.tolist() == ["Track", "Shower", "Track"]
    assert full.plane.tolist() == [2, 0, 1]
    assert full.kinetic_energy.tolist() == [812.5, 33.0, 5.0]
    np.testing.assert_array_equal(full.of(0), track)
    np.testing.assert_array_equal(full.of(1), shower)
    assert full.of(2).shape == (0, 6)
    assert len(empty.kind) == 0
    assert empty.rows.shape == (0, 6)


def test_what_is_wrong_is_named(tmp_path):
    good = [["Track", 2, 1.0, np.zeros((1, 6))]]
    path = write(tmp_path / "reco_singleMu_001_calo.npz", good)
    with pytest.raises(ParsedError, match="pickled"):
        calorimetry.read(path)
    write(path, good, [["Jet", 2, 1.0, np.zeros((1, 6))]])
    with pytest.raises(ParsedError, match=r"event 1, object 0: a Jet on plane 2"):
        calorimetry.read(path, allow_pickle=True)
    write(path, [["Track", 2, 1.0, np.zeros((1, 5))]])
    with pytest.raises(ParsedError, match="rows of 6"):
        calorimetry.read(path, allow_pickle=True)
    with pytest.raises(ParsedError, match="holds depo"):
        calorimetry.read(tmp_path / "reco_singleMu_001_depo.npz")
