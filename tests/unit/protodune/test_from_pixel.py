"""The two routes to xy files agree to the last bit; truth on a coarser grid."""

import argparse

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import from_pixel, geometry, labels, names, parsed, tile
from hpcreco.experiments.protodune.xy import PIXEL, XY

TPC, N_TICKS = 2, 48
FACE = geometry.load().face(TPC)


@pytest.fixture
def folder(tmp_path):
    """A wire file of two crowded events and truth with several tracks in one voxel."""
    rng = np.random.default_rng(2)
    out = tmp_path / "parsed"
    shared = {"event_type": "Electron", "index": 3, "tpc": TPC, "geometry": "pdsp", "generator": "test"}
    shared["geometry_digest"] = geometry.load().digest
    around = [int(plane.nearest(600, 2000)) for plane in FACE.planes]
    seen = [
        np.sort(rng.choice(plane.channels[wire - 15 : wire + 15], 12, replace=False))
        for plane, wire in zip(FACE.planes, around, strict=True)
    ]
    path = out / names.compose("Electron", 3, "wire", TPC)
    attributes = {**shared, "product": "wire", "n_ticks": N_TICKS, "n_channels": 2560}
    with parsed.wire_writer(path, attributes) as writer:
        for number in range(2):
            tick, channel = np.meshgrid(np.arange(16, 24), np.unique(np.concatenate(seen)), indexing="ij")
            charge = rng.normal(3000, 2500, tick.size) * (rng.random(tick.size) < 0.7)
            at = charge != 0
            parsed.append_waveform(writer, number, tick.ravel()[at], channel.ravel()[at], charge[at])
    path = out / names.compose("Electron", 3, "depoElectron", TPC)
    with parsed.truth_writer(path, {**shared, "product": "depoElectron"}) as writer:
        for number in range(2):
            coords = rng.integers((16, 960, 270), (24, 1040, 330), (200, 3))
            coords = np.concatenate([coords, coords[:90], coords[:30]])
            value, track = rng.exponential(2000, len(coords)), rng.integers(1, 9, len(coords))
            parsed.append_truth(writer, number, coords, value, track, track + 10)
    return out


def run(source, output, *flags):
    parser = argparse.ArgumentParser()
    tile.add_arguments(parser)
    return tile.run(
        parser.parse_args(["-i", str(source), "-o", str(output), "-t", str(TPC), "-n", "1", *flags])
    )


def test_both_routes_give_the_same_files(folder, tmp_path):
    coarser = ("--downsample-y", "5,5,5")
    assert run(folder, tmp_path / "direct", "-b", "1", "--save-pixel", *coarser) == 0
    for grid in ("8,4,4", "4,3,5"):
        direct, other = tmp_path / f"direct{grid}", tmp_path / f"pixel{grid}"
        assert run(folder, direct, "-b", "1", "--downsample", grid, *coarser) == 0
        assert run(folder, other, "--from-pixel", "--downsample", grid, *coarser) == 0
        for path in sorted(direct.glob("*.h5")):
            with shards.Shard(path, XY) as a, shards.Shard(other / path.name, XY) as b:
                assert a.rows("voxels").min() > 100
                assert a.digest == b.digest
        assert len(list(other.glob("*.h5"))) == 2
    # what came from pixels is finished for tiling too
    assert run(folder, tmp_path / "pixel8,4,4", "-b", "1", *coarser, "--dry-run") == 0
    (pixel, _) = sorted(folder.glob("*pixel*.h5"))
    assert shards.validate(pixel, PIXEL) == []


def test_from_pixel_says_what_it_cannot_do(folder, tmp_path):
    with pytest.raises(from_pixel.PixelError, match="--save-pixel makes them"):
        run(folder, tmp_path / "xy", "--from-pixel")
    with pytest.raises(tile.TileUsageError, match="keep their batches"):
        run(folder, tmp_path / "xy", "--from-pixel", "-b", "2")
    assert run(folder, tmp_path / "xy", "--save-pixel") == 0
    assert run(folder, tmp_path / "xy", "--from-pixel", "--downsample", "7,4,4") == 1
    with pytest.raises(tile.TileUsageError, match="--downsample-y 5,0,5"):
        run(folder, tmp_path / "xy", "--downsample-y", "5,0,5")


def test_coarser_truth_is_its_definition(folder, tmp_path):
    factors = np.array([3, 5, 7])
    assert run(folder, tmp_path / "xy", "--downsample-y", "3,5,7") == 0
    (path,) = (tmp_path / "xy").glob("*.h5")
    with shards.Shard(path, XY) as shard:
        assert shard.attributes["downsample_y"] == [3, 5, 7]
        for event in range(shard.n_events):
            voxels, truth, coarser = (shard.read(event, name) for name in ("voxels", "truth", "coarser"))
            sums = {}
            for cell, value in zip(truth["coords"] // factors, truth["values"][:, 0], strict=True):
                sums[tuple(cell)] = sums.get(tuple(cell), 0.0) + float(value)
            assert list(map(tuple, coarser["coords"])) == sorted(sums)
            np.testing.assert_allclose(coarser["values"][:, 0], [sums[c] for c in sorted(sums)], rtol=1e-6)
            number = {cell: row for row, cell in enumerate(sorted(sums))}
            rows = [number.get(tuple(cell), -1) for cell in voxels["coords"] // factors]
            assert voxels["coarser_row"].tolist() == rows
            assert {-1} < set(rows)


def test_no_pixels_no_cells():
    coords, features = from_pixel.coarsen(np.zeros((0, 3), np.int32), np.zeros((0, 3)), (8, 4, 4))
    assert coords.shape == features.shape == (0, 3)
    nothing = labels.CoarseTruth(np.zeros((0, 3), np.int32), np.zeros((0, 1), np.float32))
    assert labels.coarser(np.array([[1, 2, 3]]), nothing, (2, 2, 2)).row.tolist() == [-1]
