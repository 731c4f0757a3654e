"""What displays are made of: projections, voxels on wires, borders of TPCs, other programs' results."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import ListedColormap, Normalize

from hpcreco.experiments.protodune import geometry, joining
from hpcreco.experiments.protodune.display import channels, output
from hpcreco.experiments.protodune.display.borders import borders_of
from hpcreco.experiments.protodune.display.drawing import project
from hpcreco.experiments.protodune.display.load import Wanted, distinct_names, load, load_together
from hpcreco.experiments.protodune.display.panels import Panel, charge_error, difference
from hpcreco.experiments.protodune.display.region import Region
from hpcreco.experiments.protodune.display.scene import FAINT, Scene, WireImage
from hpcreco.experiments.protodune.parsed import npz

PDSP = geometry.load()
CELL = (6.26, 8.0, 8.0)


def whole(high, size=(6.0, 8.0, 8.0)) -> Region:
    return Region(np.zeros(3, int), np.array(high), np.array(size), np.zeros(3), "mm")


def panel(points, values, legend=()) -> Panel:
    return Panel("", np.array(points), np.array(values), ListedColormap(["k"]), Normalize(), legend=legend)


def test_projection_keeps_single_voxels_and_the_value_farthest_from_zero():
    shown = panel([[0, 0, 0], [0, 0, 999], [5, 0, 999], [3, 700, 500]], [1.0, 2.0, -3.0, 4.0])
    image = project(shown, 2, 1, whole([6, 701, 1000]))
    assert np.isfinite(image).sum() == 3
    assert image[0, 0] == 1
    assert image[0, -1] == -3
    assert image[-1, image.shape[1] // 2] == 4
    assert max(image.shape) <= 260


def test_projection_of_classes_shows_what_most_voxels_of_a_block_are():
    points = [[x, 0, 0] for x in range(5)] + [[0, 5, 5], [1, 5, 5]]
    shown = panel(points, [0.5, 2.5, 0.5, 1.5, 0.5, 0.5, 1.5], legend=(("a", "k"), ("b", "k"), ("c", "k")))
    image = project(shown, 2, 1, whole([6, 6, 6]))
    assert image[0, 0] == 0.5
    assert image[5, 5] == 1.5  # a tie: the later class
    assert np.isfinite(image).sum() == 2


def test_difference_and_charge_error_count_what_tiling_lost():
    coords = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.int32)
    scene = Scene(
        "s", 0, CELL, coords, np.zeros(3), predicted=np.array([9000.0, 5000.0, 10.0]),
        is_true=np.array([True, False, False]), true_charge=np.array([10000.0, 0.0, 0.0]),
        missed=coords[:1] + 5, missed_charge=np.array([10000.0]), truth_unit="e",
    )  # fmt: skip
    shown = difference(scene, 0.35)
    assert [name.rsplit(": ", 1)[1] for name, _ in shown.legend] == ["1", "1", "0", "1"]
    assert "purity 0.500, efficiency 1.000" in shown.title
    error = charge_error(scene)
    np.testing.assert_array_equal(error.values, [-1000, 5000, -10000])
    assert "0.700 of the truth" in error.title


def test_wire_image_has_every_signal(tmp_path):
    tick, channel = np.array([10, 3000, 5999]), np.array([0, 1700, 2559])
    image = WireImage(
        "wires",
        0,
        6000,
        2560,
        tick,
        channel,
        np.array([900.0, 5000.0, 20000.0]),
        (("U", 0, 800),),
        dead=(5, 6),
    )
    figure = channels.draw_wires(image)
    shown = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    assert np.isfinite(shown).sum() == 3
    figure.savefig(tmp_path / "wires.png")


@pytest.mark.parametrize("tpc", [1, 2])
def test_a_cell_lies_on_every_wire_whose_strip_meets_it(tpc):
    rng = np.random.default_rng(3)
    cells = np.column_stack([rng.integers(0, 750, 200), rng.integers(0, 748, 200), rng.integers(0, 287, 200)])
    y, z = np.meshgrid(np.linspace(0, 8, 161)[:-1] + 0.025, np.linspace(0, 8, 161)[:-1] + 0.025)
    for plane in PDSP.face(tpc).planes:
        for cell in cells:
            x, channel = channels.on_wires(cell[None], CELL, plane)
            wires = np.unique(plane.nearest(cell[2] * 8 + z, cell[1] * 8 + y))
            wanted = {int(c) for c in plane.channels[wires[wires >= 0]]}
            # a corner of 0.05 mm may lie between the sampled points
            assert wanted <= set(channel.tolist())
            assert len(set(channel.tolist()) - wanted) <= 1
            assert (x == cell[0]).all()


def test_overlay_shows_each_voxel_in_its_class():
    coords = np.array([[100, 300, 100], [200, 300, 100], [300, 300, 100]], np.int32)
    scene = Scene(
        "s", 0, CELL, coords, np.ones(3), scores=np.array([0.9, 0.9, 0.1]), is_true=np.array([True, False, True]),
        true_charge=np.ones(3), missed=np.array([[400, 300, 100]]), missed_charge=np.ones(1), tpcs=(1,),
    )  # fmt: skip
    none = np.zeros(0, int)
    image = WireImage("w", 0, 6000, 2560, none, none, none.astype(float), (("U", 0, 800),), tpc=1)
    figure = channels.draw_wires(image, [scene], PDSP.face(1), 0.35)
    shown = np.asarray(figure.axes[1].images[0].get_array().filled(np.nan))
    found = {x: set(shown[x][np.isfinite(shown[x])]) for x in (100, 200, 300, 400)}
    assert found == {100: {2.5}, 200: {1.5}, 300: {3.5}, 400: {4.5}}
    assert np.isfinite(shown[100]).sum() >= 6  # two planes of two wires, and the collection plane
    names = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "true, called ghost: 1 voxels" in names


def test_borders_hold_the_charge_of_the_trigger_time():
    """Corners of the boxes in the detector frame, taken through readout frame and joining, are on the borders."""
    origin = PDSP.face(1).r_min
    attributes = {"tpc": [1, 2, 5], "voxel_size_mm": list(CELL), "frame_origin_mm": list(origin)}
    borders = {border.name: border for border in borders_of(attributes)}
    for tpc in (1, 2, 5):
        face = PDSP.face(tpc)
        inside = np.random.default_rng(1).uniform(face.r_min, face.r_max, (500, 3))
        inside[0], inside[1] = np.add(face.r_min, 0.5), np.subtract(face.r_max, 0.5)
        local, _ = PDSP.to_local(tpc, inside, 0.0)
        cells = np.floor(local / CELL).astype(np.int32)
        places = joining.place(cells, face, joining.shift(face, CELL, origin))
        border = borders[f"TPC {tpc}"]
        assert (places >= np.floor(border.low + 1e-6)).all()
        assert (places < np.ceil(border.high - 1e-6)).all()
        assert (places.max(0) - places.min(0) >= border.high - border.low - 3).all()
    (alone,) = borders_of({**attributes, "tpc": [5]})
    assert alone.low[2] == 0


def test_reference_programs_results_are_put_on_the_grid_of_the_network(tmp_path, toy_run):
    made = toy_run()
    event = made.events["Mu"][0]
    true = event.coords[event.labels > 0.001]
    fine = true * np.array([8, 4, 4]) + [3, 1, 2]
    rows = np.column_stack([fine - [500, 0, 0], np.full(len(fine), 3 * FAINT)])
    path = tmp_path / "reco_singleMu_001_spacepoint-TPC1.npz"
    # the toy's events are numbered from 10
    npz.write_npz(path, [np.zeros((0, 4))] * 10 + [rows])
    yinf, points = load_together([made.yinf[0], path], Wanted())
    assert yinf.event_id == points.event_id == 10
    np.testing.assert_array_equal(points.candidates, true)
    assert not points.has_truth
    _, judged = output.with_truth([yinf, points])
    assert judged.is_true.all()
    n, lost = len(true), 3
    assert f"efficiency {n / (n + lost):.3f}" in difference(judged, 0.35).title
    np.testing.assert_array_equal(np.sort(judged.true_charge), np.sort(event.labels[event.labels > 0.001]))
    assert len(judged.missed) == 3


def test_files_of_the_same_name_are_told_apart_by_their_folders():
    paths = [Path("runs/a/inference/x.h5"), Path("runs/b/inference/x.h5"), Path("runs/wire.h5")]
    assert distinct_names(paths) == ["a: x", "b: x", "wire"]
    assert distinct_names([Path("a/x.h5"), Path("b/y.h5")]) == ["x", "y"]
    assert distinct_names([Path("x.h5"), Path("x.h5")]) == ["x", "x"]
    assert distinct_names([Path("x.h5"), Path("b/x.h5")]) == ["x", "b: x"]


def test_solved_charge_is_shown_with_the_truth_of_its_xy_file(tmp_path, toy_run):
    from hpcreco.shards import Attribute, Field, Schema, Shard, ShardWriter, Table

    made = toy_run()
    schema = Schema(
        "hpcreco/protodune/solved", 1,
        (Table("voxels", (Field("coords", "int32", ("x", "y", "z")), Field("charge", "float32"))),),
        (Attribute("tpc", "ints"), Attribute("voxel_size_mm", "floats"), Attribute("frame_origin_mm", "floats"),
         Attribute("xy_digest", "str"), Attribute("xy_file", "str")),
    )  # fmt: skip
    with Shard(made.xy[0]) as xy:
        attributes = {"xy_digest": xy.digest, "xy_file": str(made.xy[0])} | {
            name: xy.attributes[name] for name in ("tpc", "voxel_size_mm", "frame_origin_mm")
        }
    path = tmp_path / "solved.h5"
    with ShardWriter(path, schema, attributes) as writer:
        for k, event in enumerate(made.events["Mu"]):
            chosen = event.scores > 0.35
            table = {"coords": event.coords[chosen], "charge": event.labels[chosen]}
            writer.append(10 + k, {"voxels": table})
    event, scene = made.events["Mu"][1], load(path, Wanted(11))
    np.testing.assert_array_equal(scene.predicted, scene.true_charge)
    assert len(scene.missed) == ((event.labels > 0) & (event.scores <= 0.35)).sum() + 3
