"""Joining and wires from seeds against public data: Geant4 deposits, and the experiment's own wire positions."""

import argparse

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, join_tpcs
from hpcreco.experiments.protodune.geometry import DRIFT_SPEED, PIXEL_SIZE, SIM_T0, VOXEL_SIZE, wires
from hpcreco.experiments.protodune.imports import depos
from hpcreco.experiments.protodune.tiling.tiler import Tiler, TilingOptions
from hpcreco.experiments.protodune.xy import XY

PDSP = geometry.load()
DOWNSAMPLE = (8, 4, 4)
COARSE = np.array(VOXEL_SIZE) * DOWNSAMPLE


def collected(face, local, electrons):
    """Samples of charge that ends on the nearest wire of every plane at its tick."""
    dense: dict[tuple[int, int], float] = {}
    for plane in face.planes:
        wire = plane.nearest(local[:, 2], local[:, 1])
        tick = np.floor(local[:, 0] / VOXEL_SIZE[0]).astype(int)
        for t, c, q in zip(
            tick[wire >= 0], plane.channels[wire[wire >= 0]], electrons[wire >= 0], strict=True
        ):
            dense[t, c] = dense.get((t, c), 0.0) + q
    keys = np.array(sorted(dense))
    return keys[:, 0], keys[:, 1], np.array([dense[tuple(key)] for key in keys.tolist()])


def write_xy(folder, tpc, tiles, shape):
    face = PDSP.face(tpc)
    attributes = {
        "event_type": "Pion", "index": 1, "batch": 0, "n_batches": 1, "tpc": [tpc], "y_type": "", "y_unit": "",
        "downsample": list(DOWNSAMPLE), "voxel_size_mm": COARSE.tolist(), "frame_origin_mm": list(face.r_min),
        "spatial_shape": list(shape), "feature_names": list(face.feature_names), "x_type": "wire",
        "tiling_threshold": 1e-3, "active_none": True, "clip_negative": False, "legacy_rounding": False,
        "dead_channels": [], "tiling_version": 1, "geometry": PDSP.name, "geometry_digest": PDSP.digest,
        "source_digests": [], "source_files": [],
    }  # fmt: skip
    path = folder / f"batch0-reco_singlePion_001_xy-TPC{tpc}.h5"
    columns = {"voxels/features": face.feature_names, "tiling/lost_charge": face.feature_names}
    with shards.ShardWriter(path, XY, attributes, columns) as writer:
        voxels = {"coords": tiles.coords, "features": tiles.features}
        writer.append(
            0, {"voxels": voxels, "tiling": {"lost_charge": tiles.lost, "fine_voxels": tiles.pixels}}
        )


def test_a_pion_that_crosses_tpcs_is_one_image(public_data, tmp_path):
    """Deposits -> wires -> tiling of each TPC -> join: every deposit's cell in the common frame is a candidate, and
    every plane keeps the charge. The cells are computed from detector positions alone.
    """
    (deposits,) = depos.read_depos(public_data / "protodune/depos/bee-pion7GeV-event0.zip").values()
    tpcs, total, wanted, seen = (1, 5, 9), 0.0, [], []
    for tpc in tpcs:
        face = PDSP.face(tpc)
        local, keep = PDSP.to_local(tpc, deposits.position, 0.0)
        rows = np.flatnonzero(keep)[::4] if tpc == 1 else np.flatnonzero(keep)  # a quarter is plenty
        tiler = Tiler(face, TilingOptions(downsample=DOWNSAMPLE))
        tiles = tiler.tile(*collected(face, local[rows], deposits.electrons[rows]))
        write_xy(tmp_path / "xy", tpc, tiles, tiler.shape)
        seen.append(len(rows))
        total += deposits.electrons[rows].sum()
        from_corner = deposits.position[rows] - PDSP.face(1).r_min + [DRIFT_SPEED * SIM_T0, 0, 0]
        wanted.append(np.floor(from_corner / COARSE).astype(int))
    assert sum(n > 0 for n in seen) >= 2, "the pion must cross from one TPC into another"
    parser = argparse.ArgumentParser()
    join_tpcs.add_arguments(parser)
    assert join_tpcs.run(parser.parse_args(["-i", str(tmp_path / "xy"), "-o", str(tmp_path / "joined")])) == 0
    with shards.Shard(tmp_path / "joined" / "batch0-reco_singlePion_001_xy-TPC159.h5", XY) as joined:
        voxels, lost = joined.read(0, "voxels"), joined.read(0, "tiling")["lost_charge"][0]
        assert (voxels["coords"] < joined.attributes["spatial_shape"]).all()
    candidates = set(map(tuple, voxels["coords"].tolist()))
    cells = set(map(tuple, np.concatenate(wanted).tolist()))
    assert cells <= candidates
    kept = voxels["features"].sum(axis=0, dtype=float) + lost
    np.testing.assert_allclose(kept, total, rtol=2e-3)  # a few deposits are at no wire


@pytest.mark.parametrize("dump", ["protodune-wires-larsoft-v4", "protodunehd-wires-larsoft-v1"])
def test_reflected_wires_are_those_of_the_experiment(public_data, dump):
    """One seed of 800 wires per plane, taken from one face of the wire dump, reflected in the edges of the box: every
    channel's strips on both faces lie where the dump has them, to 0.1 mm, except one wire in a corner.
    """
    detector = geometry.load(f"larsoft:{public_data / 'protodune/wires' / dump}.json.bz2")
    faces = [face for _, face in sorted(detector.faces.items())][:2]
    assert [face.face for face in faces] == [1, 2]
    seeds = []
    for plane in faces[0].planes:
        if plane.name == "X":
            continue
        # the longest run of wires without a repeated channel
        first = plane.n_wires - 800 if plane.name == "U" else 0
        seeds.append(
            wires.Seed(
                plane=plane.name, face=1, angle=plane.angle, pitch=plane.pitch * PIXEL_SIZE, count=800,
                offset=(plane.offset + first * plane.pitch) * PIXEL_SIZE, reflect=True,
                channels=plane.channels[first : first + 800].tolist(),
            )
        )  # fmt: skip
    box = (faces[0].pixels[1], faces[0].pixels[0])
    for seed in seeds:
        sets = list(wires.wire_sets(seed, box))
        for face in faces:
            theirs = next(plane for plane in face.planes if plane.name == seed.plane)
            ours = wires.merge(seed.plane, [s for s in sets if s.face == face.face], "here")
            edges = ours.edges
            centre = (edges[1:] + edges[:-1]) / 2
            expected = theirs.offset + theirs.pitch * np.arange(theirs.n_wires)
            apart = [
                np.abs(c - centre[ours.channels == channel]).min(initial=np.inf) * PIXEL_SIZE
                for c, channel in zip(expected, theirs.channels, strict=True)
            ]
            assert (np.array(apart) > 0.1).sum() <= 1
            assert theirs.n_wires - ours.n_wires in (0, 1)
