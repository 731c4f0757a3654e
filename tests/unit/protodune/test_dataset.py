"""Reading events for the network: thresholds, transforms, extents, data without truth, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcreco.config import Run
from hpcreco.data.batch import Event
from hpcreco.experiments.protodune.dataset import DataError, reader
from hpcreco.experiments.protodune.dialect import normalise
from hpcreco.experiments.protodune.scaling import squeeze
from hpcreco.experiments.protodune.settings import Normalise
from hpcreco.shards import Shard


def make_run(folder: Path, model=None, **data) -> Run:
    raw = {
        "output_dir": "out",
        "data": {"data_path": str(folder), "inference_i": [0, 9], **data},
        "model": {"name": "cellnet_binary", "spatial_size": [64, 64, 64], **(model or {})},
    }
    return normalise(raw)


def read(toy, training=False, model=None, event=0, seed=0, **data) -> tuple[dict, object]:
    """The voxels of one event of the toy run's first file, and the event as it was written."""
    run = make_run(toy.xy[0].parent, model, **data)
    with Shard(toy.xy[0]) as shard:
        read_event = reader(run, training)(shard, event, np.random.default_rng(seed))
    assert isinstance(read_event, Event)
    return dict(read_event.tables["voxels"]), toy.events["Mu"][event]


def test_an_event_is_its_rows(toy_run):
    voxels, written = read(toy_run(), event=1)
    np.testing.assert_array_equal(voxels["coords"], written.coords)
    np.testing.assert_array_equal(voxels["features"], written.features)
    np.testing.assert_array_equal(voxels["labels"], written.labels[:, None])
    assert {name: array.dtype for name, array in voxels.items()} == {
        "coords": np.int32, "features": np.float32, "labels": np.float32,
    }  # fmt: skip


def test_the_threshold_is_strict(toy_run):
    voxels, written = read(toy_run(), threshold=1000)  # faint voxels hold exactly 1000
    np.testing.assert_array_equal(voxels["labels"][:, 0], written.labels > 1000)
    voxels, written = read(toy_run(), threshold=999)
    assert voxels["labels"].sum() == (written.labels > 0).sum()


def test_coord_lim_is_for_training_only(toy_run):
    limits = {"coord_lim": [[10, 40], None, [0, 20]]}
    toy = toy_run()
    voxels, written = read(toy, training=True, transforms=limits)
    x, _, z = written.coords.T
    keep = (x >= 10) & (x < 40) & (z < 20)
    assert 0 < keep.sum() < len(keep)
    np.testing.assert_array_equal(voxels["coords"], written.coords[keep])
    np.testing.assert_array_equal(voxels["features"], written.features[keep])
    np.testing.assert_array_equal(voxels["labels"][:, 0], written.labels[keep])
    assert len(read(toy, transforms=limits)[0]["coords"]) == len(written.coords)


def test_an_event_without_voxels_in_the_limits_is_empty(toy_run):
    voxels, _ = read(toy_run(), training=True, transforms={"coord_lim": [[900, 901], None, None]})
    assert {name: array.shape for name, array in voxels.items()} == {
        "coords": (0, 3), "features": (0, 3), "labels": (0, 1),
    }  # fmt: skip


def test_z_segments_are_one_hot_columns(toy_run):
    voxels, written = read(toy_run(), model={"nInputFeatures": 6}, transforms={"z_segments": [10, 30, 50]})
    z = written.coords[:, 2]
    expected = np.stack([z < 10, (z >= 10) & (z < 30), (z >= 30) & (z < 50)], axis=1)
    np.testing.assert_array_equal(voxels["features"][:, 3:], expected)
    np.testing.assert_array_equal(voxels["features"][:, :3], written.features)
    assert (expected.sum(axis=1) == 0).any()  # beyond the last bound: no segment


def test_noise_is_on_the_charges_and_follows_the_generator(toy_run):
    toy = toy_run()
    transforms = {"noise": {"mean": 50, "sd": 10}, "z_segments": [70]}
    (a, written), (b, _), (c, _) = (
        read(toy, seed=seed, model={"nInputFeatures": 4}, transforms=transforms) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a["features"], b["features"])
    assert not np.array_equal(a["features"], c["features"])
    added = a["features"][:, :3] - written.features
    assert added.mean() == pytest.approx(50, abs=2)
    assert added.std() == pytest.approx(10, rel=0.1)
    assert (a["features"][:, 3] == 1).all()


def test_round_comes_after_noise(toy_run):
    voxels, _ = read(toy_run(), transforms={"noise": {"sd": 3}, "round": -1})
    np.testing.assert_allclose(voxels["features"] % 10, 0, atol=1e-2)


def test_scale_is_per_folder_and_comes_before_the_threshold(toy_run, tmp_path):
    toy = toy_run()
    raw = {"data_path": [str(tmp_path), str(toy.xy[0].parent)], "inference_i": [None, [0, 9]]}
    voxels, written = read(toy, **raw, transforms={"scale": [7.0, 2.0]})
    np.testing.assert_array_equal(voxels["labels"][:, 0], written.labels * 2)
    voxels, _ = read(toy, **raw, transforms={"scale": [7.0, 2.0]}, threshold=1999)
    np.testing.assert_array_equal(voxels["labels"][:, 0], written.labels * 2 > 1999)


@pytest.mark.parametrize("kind", ["asinh", "log"])
def test_squeezed_charges_keep_sign_and_order(kind):
    charges = np.array([[-1e5], [-1.0], [0.0], [1e3], [1e5]], np.float32)
    small = squeeze(charges, Normalise(kind=kind, scale=1000))
    assert (np.diff(small[:, 0]) > 0).all()
    np.testing.assert_allclose(small[::-1], -squeeze(-charges, Normalise(kind=kind, scale=1000))[::-1])
    assert abs(small).max() < 6
    assert small[1, 0] == pytest.approx(-0.001, rel=1e-2)  # small charges: linear
    assert squeeze(charges, None) is charges


def test_normalise_is_off_unless_asked_for(toy_run):
    toy = toy_run()
    voxels, written = read(toy, normalise="asinh")
    np.testing.assert_allclose(voxels["features"], np.arcsinh(written.features / 1000), rtol=1e-6)


def test_coordinates_outside_the_model_are_refused_with_the_size_needed(toy_run):
    with pytest.raises(DataError) as error:
        read(toy_run(), model={"spatial_size": [64, 32, 64]})
    assert "[64, 64, 64]" in str(error.value)
    assert "batch0-reco_Mu_001_xy-TPC1.h5, event 10" in str(error.value)


def test_a_wrong_number_of_features_is_refused(toy_run):
    with pytest.raises(DataError, match="nInputFeatures is 5"):
        read(toy_run(), model={"nInputFeatures": 5})


def test_without_truth_there_are_no_labels_and_no_training(toy_run):
    toy = toy_run(truth=False)
    voxels, _ = read(toy, threshold=0.1)
    assert set(voxels) == {"coords", "features"}
    with pytest.raises(DataError, match="no labels to train on"):
        read(toy, training=True)


def test_features_that_are_not_finite_are_refused(toy_run):
    class Broken:
        """A shard with a NaN, which our writer would not have written."""

        path, event_ids = Path("xy/broken.h5"), np.array([4])

        def read(self, event, table, fields=None):
            features = np.ones((5, 3), np.float32)
            features[2, 1] = np.nan
            return {"coords": np.zeros((5, 3), np.int32), "features": features}

    with pytest.raises(DataError, match=r"broken\.h5, event 4: features hold NaN"):
        reader(make_run(toy_run().xy[0].parent), False)(Broken(), 0, np.random.default_rng(0))
