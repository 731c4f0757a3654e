import bz2
import json

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry

DUMP = "protodune/wires/protodune-wires-larsoft-v4.json.bz2"


@pytest.fixture(scope="module")
def dumped(public_data):
    return geometry.load(f"larsoft:{public_data / DUMP}")


def centres(face, plane):
    """Distance of every wire from the detector origin along the plane's direction, mm."""
    corner = np.dot(plane.direction, (face.r_min[2], face.r_min[1]))
    return 2 * (plane.offset + plane.pitch * np.arange(plane.n_wires)) + corner


def test_dump_agrees_with_the_built_in_numbers(dumped):
    """All 36 planes: wire count, channel map, angle, pitch, and wires within 2.4 mm."""
    pdsp = geometry.load("pdsp")
    assert dumped.tpcs == pdsp.tpcs
    for tpc in pdsp.tpcs:
        ours, theirs = pdsp.face(tpc), dumped.face(tpc)
        assert (ours.apa, ours.face, ours.pixels) == (theirs.apa, theirs.face, theirs.pixels)
        assert ours.feature_names == theirs.feature_names
        for p, q in zip(ours.planes, theirs.planes, strict=True):
            np.testing.assert_array_equal(p.channels, q.channels)
            assert q.angle == pytest.approx(p.angle, abs=0.01)
            assert q.pitch == pytest.approx(p.pitch, abs=0.0011)
            assert np.abs(centres(ours, p) - centres(theirs, q)).max() < 2.4
        if tpc in geometry.REAL_TPCS:
            np.testing.assert_allclose(theirs.r_min, ours.r_min, atol=2.0)
            np.testing.assert_allclose(theirs.r_max, ours.r_max, atol=2.0)


def test_collection_strips_of_a_dump_cover_every_column(dumped):
    for tpc in dumped.tpcs:
        face = dumped.face(tpc)
        x = next(p for p in face.planes if p.name == "X")
        assert (
            x.nearest(np.array([0.001, 2 * face.pixels[1] - 0.001]), np.array([10.0, 10.0])) == [0, 479]
        ).all()


def small_dump(jitter=0.0):
    """One anode, two faces, straight wires every 10 mm (U and V at 45 degrees)."""
    points, wires, planes, faces = [], [], [], []
    for face in range(2):
        mine = []
        for number, (dz, dy) in enumerate([(1, 1), (-1, 1), (0, 1)]):
            numbers = []
            for k in range(8):
                z = 100 + 10 * k + (jitter if k == 3 else 0)
                x = (1000 + 5 * number) if face == 1 else (1100 - 5 * number)
                points += [{"Point": {"x": x, "y": 50 + dy * s, "z": z + dz * s}} for s in (0, 100)]
                channel = 8 * (number + face) + k + 5000 if number == 2 else 8 * number + k + 5000
                wires.append({"Wire": {"ident": k, "channel": channel, "segment": 0,
                                       "tail": len(points) - 2, "head": len(points) - 1}})  # fmt: skip
                numbers.append(len(wires) - 1)
            planes.append({"Plane": {"ident": number, "wires": numbers}})
            mine.append(len(planes) - 1)
        faces.append({"Face": {"ident": face, "planes": mine}})
    return {"Store": {"anodes": [{"Anode": {"ident": 0, "faces": [0, 1]}}], "faces": faces, "planes": planes,
                      "wires": wires, "points": points}}  # fmt: skip


def test_any_detector_with_regular_planes_is_read(tmp_path):
    path = tmp_path / "wires.json.bz2"
    path.write_bytes(bz2.compress(json.dumps(small_dump()).encode()))
    found = geometry.load(f"larsoft:{path}")
    assert found.tpcs == (0, 1)
    face = found.face(0)  # looks towards lower x, where x = 0 is the cathode
    assert face.r_max[0] == pytest.approx(1002.5)
    assert face.r_min[0] == 0
    assert [round(p.angle, 3) for p in face.planes] == [-45, 0, 45]
    assert [p.pitch for p in face.planes] == pytest.approx([5 / 2**0.5, 5, 5 / 2**0.5], abs=1e-5)
    x = face.planes[1]
    assert x.nearest(np.array([124.0, 126.0]) - face.r_min[2], np.full(2, 10.0)).tolist() == [2, 3]
    assert found.face(1).planes[1].channels.tolist() == list(range(16, 24))
    assert face.planes[1].channels.tolist() == list(range(24, 32))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"not a dump", "not a wire dump"), (json.dumps({"Store": {}}).encode(), "not a wire dump"),
     (json.dumps(small_dump(jitter=3.0)).encode(), "equal spacing")],
)  # fmt: skip
def test_unusable_dumps_are_refused(tmp_path, content, says):
    path = tmp_path / "wires.json"
    path.write_bytes(content)
    with pytest.raises(geometry.GeometryError, match=says):
        geometry.load(f"larsoft:{path}")


def test_missing_dump_names_the_path(tmp_path):
    with pytest.raises(geometry.GeometryError, match=r"nowhere\.json"):
        geometry.load(f"larsoft:{tmp_path / 'nowhere.json'}")
