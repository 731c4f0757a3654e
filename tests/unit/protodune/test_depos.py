import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.imports import depos
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.drift import DriftSettings
from hpcreco.experiments.protodune.simulation.signals import SignalSettings
from hpcreco.experiments.protodune.tiling.tiler import Tiler

EXACT = replace(
    Settings(),
    drift=DriftSettings(longitudinal=0.0, transverse=0.0, sub_charges=1),
    signals=SignalSettings(
        noise_induction=0.0,
        noise_collection=0.0,
        run_level=0.0,
        seed_induction=0.0,
        seed_collection=0.0,
        pad=0,
    ),
)


def bee(path, **columns):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/3/3-truthDepo.json", json.dumps(columns))
        archive.writestr("data/3/3-mc.json", "[]")
    return path


def test_bee_points_are_centimetres_and_electrons(tmp_path):
    path = bee(tmp_path / "e.zip", x=[-100.0, -1.0], y=[200.0, 300.0], z=[50.0, 51.0], q=[6000, 12000])
    (number, found), *rest = depos.read_depos(path, shift=(1.0, 2.0, 3.0)).items()
    assert number == 3 and not rest
    assert found.position.tolist() == [[-999.0, 2002.0, 503.0], [-9.0, 3002.0, 513.0]]
    assert found.electrons.tolist() == [6000.0, 12000.0]
    assert found.energy == pytest.approx([0.203, 0.406], rel=0.01)  # at 6.2 k e per 0.21 MeV
    assert found.time.tolist() == [0.0, 0.0]


def test_wirecell_depos_keep_tracks_and_drop_drifted_ones(tmp_path):
    path = tmp_path / "depos.npz"
    data = np.array([[500.0, 600.0], [-100.0, -200.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0, 0], [0, 0]])
    np.savez(path, depo_data_0=data, depo_info_0=np.array([[7, 8], [13, -11], [0, 1], [0, 0]]))
    found = depos.read_depos(path)[0]
    assert (found.track.tolist(), found.pdg.tolist(), found.time.tolist()) == ([7], [13], [0.5])
    assert (found.electrons.tolist(), found.position.tolist()) == ([100.0], [[1.0, 3.0, 5.0]])


def test_files_of_another_kind_are_named(tmp_path):
    bad = tmp_path / "x.zip"
    bad.write_text("nothing")
    with pytest.raises(depos.DepoError, match=r"x\.zip"):
        depos.read_depos(bad)
    with pytest.raises(depos.DepoError, match="'q'"):
        depos.read_depos(bee(tmp_path / "y.zip", x=[1.0], y=[1.0], z=[1.0]))
    np.savez(tmp_path / "z.npz", other=np.zeros(3))
    with pytest.raises(depos.DepoError, match="no deposits"):
        depos.read_depos(tmp_path / "z.npz")


@pytest.mark.parametrize(
    ("file", "shift", "tpc", "share"),
    [("bee-pion7GeV-event0.zip", (0, 0, 0), 1, 0.7), ("muon-depos.npz", (0, 100, -2400), 2, 0.2)],
)
def test_public_depositions_are_tiled_without_loss(public_data, file, shift, tpc, share):
    """Invariants I2 and I3 of the tiling on Geant4 events; the sum of charge is the file's."""
    (number, found), *_ = depos.read_depos(public_data / "protodune/depos" / file, shift).items()
    pdsp = geometry.load()
    event = depos.respond(found, number, pdsp, tpc, EXACT, seed=1)
    assert event.truth.electrons.sum() > share * found.electrons.sum()
    tiles = Tiler(pdsp.face(tpc)).tile(*event.samples)
    true_cells = set(map(tuple, event.truth.coords // geometry.DOWNSAMPLE))
    assert len(true_cells) > 300
    assert true_cells <= set(map(tuple, tiles.coords.tolist()))
    for column, plane in enumerate(pdsp.face(tpc).planes):
        collected = event.samples.value[np.isin(event.samples.channel, plane.channels)].sum(dtype=float)
        shared = tiles.features[:, column].sum(dtype=float) + tiles.lost[column]
        assert shared == pytest.approx(collected, rel=1e-5)


def test_bee_total_charge_and_share_inside_the_detector(public_data):
    found = depos.read_bee(public_data / "protodune/depos/bee-pion7GeV-event0.zip")[0]
    assert found.electrons.sum() == pytest.approx(8.49e7, rel=1e-3)
    pdsp = geometry.load()
    inside = sum(pdsp.to_local(tpc, found.position, 0.0)[1].sum() for tpc in geometry.REAL_TPCS)
    assert inside / len(found) == pytest.approx(0.996, abs=0.002)
