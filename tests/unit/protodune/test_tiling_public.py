"""Tiling of detector data and simulation that hpcreco did not make itself."""

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.geometry import VOXEL_SIZE
from hpcreco.experiments.protodune.imports import depos, frames
from hpcreco.experiments.protodune.tiling.tiler import Tiler, TilingOptions

PDSP = geometry.load()


@pytest.fixture(scope="module")
def real(public_data):
    """The ProtoDUNE-HD event: APA 1, whose face 1 sees drifting charge."""
    archive = public_data / "protodune/protodunehd-sp/protodunehd-sp-frames-anode1-ticks0-4000.tar.bz2"
    (event,) = frames.read_frames(archive)
    return event


def tile_real(event, detector, dead):
    options = TilingOptions(dead_channels=tuple(map(int, event.bad_channels)) if dead else ())
    face = detector.face(event.tpc)
    return face, Tiler(face, options, n_ticks=event.n_ticks).tile(*event.waveforms)


@pytest.mark.parametrize("spec", ["pdsp", "larsoft"])
def test_planes_of_the_real_event_agree_in_charge(real, public_data, spec):
    """All three planes saw the same electrons: shared to candidates, their sums agree to about 10 %."""
    if spec == "larsoft":
        spec = f"larsoft:{public_data / 'protodune/wires/protodunehd-wires-larsoft-v1.json.bz2'}"
    face, tiles = tile_real(real, geometry.load(spec), dead=True)
    assert face.face == 1
    shared = tiles.features.sum(axis=0, dtype=float)
    np.testing.assert_allclose(shared / shared.mean(), 1, atol=0.1)
    assert (tiles.lost < 0.03 * shared).all()
    by_slice = np.stack([np.bincount(tiles.coords[:, 0], weights=f, minlength=500) for f in tiles.features.T])
    ratio = by_slice / by_slice.mean(axis=0)
    assert (np.abs(np.median(ratio, axis=1) - 1) < 0.1).all()


def test_dead_channels_of_the_real_event_join_what_they_had_cut(real):
    ndimage = pytest.importorskip("scipy.ndimage")
    sizes, cells = [], []
    for dead in (False, True):
        _, tiles = tile_real(real, PDSP, dead)
        cells.append({tuple(c) for c in tiles.coords.tolist()})
        volume = np.zeros((500, 748, 288), bool)
        volume[tuple(tiles.coords.T)] = True
        pieces, _ = ndimage.label(volume, np.ones((3, 3, 3)))
        sizes.append(np.sort(np.bincount(pieces[volume]))[::-1][:5].sum())
    assert cells[0] < cells[1]
    assert sizes[1] > sizes[0]


def collected(face, local, electrons):
    """Charge of each deposit on the nearest wire of every plane at its tick: no diffusion, no noise."""
    tick = np.floor(local[:, 0] / VOXEL_SIZE[0]).astype(int)
    samples = []
    for plane in face.planes:
        wire = plane.nearest(local[:, 2], local[:, 1])
        covered = wire >= 0
        key, at = np.unique(tick[covered] * 2560 + plane.channels[wire[covered]], return_inverse=True)
        samples.append((key, np.bincount(at, weights=electrons[covered])))
    key, charge = (np.concatenate(column) for column in zip(*samples, strict=True))
    return key // 2560, key % 2560, charge


@pytest.mark.parametrize(("sample", "shift", "tpcs"), [
    ("depos/bee-pion7GeV-event0.zip", (0, 0, 0), (1, 5, 9)),
    ("depos/muon-depos.npz", None, (5, 1, 9)),
])  # fmt: skip
def test_public_deposits_are_candidates_and_keep_their_charge(public_data, sample, shift, tpcs):
    path = public_data / "protodune" / sample
    if shift is None:  # another detector: put its middle into the middle of the first TPC
        (points,) = (d.position for d in depos.read_depos(path).values())
        box = PDSP.face(tpcs[0])
        shift = tuple((np.array(box.r_min) + box.r_max) / 2 - (points.min(axis=0) + points.max(axis=0)) / 2)
    (deposits,) = depos.read_depos(path, shift).values()
    n_seen = 0
    for tpc in tpcs:
        face = PDSP.face(tpc)
        local, keep = PDSP.to_local(tpc, deposits.position, 0.0)
        local, electrons = local[keep], deposits.electrons[keep]
        n_seen += len(local)
        if not len(local):
            continue
        truth = np.unique(np.floor(local / VOXEL_SIZE).astype(int), axis=0)
        samples = collected(face, local, electrons)
        for downsample in ((1, 1, 1), (8, 4, 4)):
            tiles = Tiler(face, TilingOptions(downsample=downsample)).tile(*samples)
            shape = np.array([6000, 2992, 1150]) // downsample + 1
            candidates = np.ravel_multi_index(tiles.coords.T, shape)
            wanted = np.ravel_multi_index((truth // downsample).T, shape)
            assert np.isin(wanted, candidates).all()
            for p, plane in enumerate(face.planes):
                total = samples[2][np.isin(samples[1], plane.channels)].sum()
                shared = tiles.features[:, p].sum(dtype=float)
                assert shared + tiles.lost[p] == pytest.approx(total, rel=1e-5)
                assert tiles.lost[p] < 1e-3 * total
    assert n_seen > 0.4 * len(deposits.electrons)
