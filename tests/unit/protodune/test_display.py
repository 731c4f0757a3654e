"""Event displays: pictures that show something, pages that hold the event."""

import argparse
import base64
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hpcreco.experiments.protodune import display, parsed
from hpcreco.experiments.protodune.display.channels import draw_wires
from hpcreco.experiments.protodune.display.page import page
from hpcreco.experiments.protodune.display.pictures import draw_scene
from hpcreco.experiments.protodune.display.region import region_of
from hpcreco.experiments.protodune.display.scene import DisplayError, Scene, WireImage


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    display.add_arguments(parser)
    return display.run(parser.parse_args([str(a) for a in arguments]))


class Page(HTMLParser):
    """Elements of a page, and the text of those with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str | None] = []
        self.links: list[str] = []
        self.title = ""
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in ("meta", "input", "br"):
            self.open.append(values.get("id") or tag)

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def event_of(page: Page) -> dict:
    data = json.loads(page.texts["event"])
    types = {"coords": "<i2", "flags": "u1", "scores": "<f4", "charge": "<f4", "true_charge": "<f4",
             "predicted": "<f4"}  # fmt: skip
    return data | {k: np.frombuffer(base64.b64decode(data[k]), t) for k, t in types.items() if k in data}


def drawn(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    picture = imread(path)[..., :3]
    assert min(picture.shape[:2]) > 300
    return picture


def test_yinf_event_as_picture_and_page(toy_run, tmp_path, capsys):
    made = toy_run()
    assert run(made.yinf[0], "--event", 11, "--out", tmp_path / "pictures", "--threshold", 0.4) == 0
    png, html = (Path(line) for line in capsys.readouterr().out.splitlines())
    picture = drawn(png)
    # every class of the difference panel is there, in its colour
    for colour in ("#0072B2", "#E69F00", "#000000", "#CC79A7"):
        rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        assert (np.abs(picture - rgb).max(-1) < 0.02).sum() > 50, colour
    event = made.events["Mu"][1]
    found = Page(html.read_text())
    assert found.open == []
    assert found.links == []  # nothing is loaded from elsewhere
    assert "event 11" in found.texts["title"]
    data = event_of(found)
    n = len(event.coords)
    missed = event.truth[-3:]
    np.testing.assert_array_equal(data["coords"].reshape(-1, 3), np.concatenate([event.coords, missed]))
    np.testing.assert_array_equal(data["scores"][:n], event.scores)
    np.testing.assert_array_equal(data["flags"][:n], 1 + 2 * (event.labels > 0.001))
    np.testing.assert_array_equal(data["flags"][n:], 2)
    np.testing.assert_allclose(data["charge"][:n], event.features.mean(1), rtol=1e-5)
    assert data["threshold"] == 0.4
    assert not list(png.parent.glob(".*"))


# what a visitor does, and what is then found on the page; drawn at once, not with the next frame of a busy machine
VISIT = """
<script>
const done = {errors: []}, view = $("view");
addEventListener("error", e => done.errors.push(e.message));
const act = (type, x, y, more) =>
  view.dispatchEvent(new PointerEvent(type, {clientX: x, clientY: y, pointerId: 1, ...more}));
const drawn = () => {
  resize(); drawPoints(); drawBox();
  return new Set(new Uint32Array(context.getImageData(0, 0, view.width, view.height).data.buffer)).size;
};
view.setPointerCapture = () => {};
done.start = drawn();
done.status = $("status").textContent;
$("threshold").value = 0.8; $("threshold").oninput();
done.raised = $("status").textContent;
const before = {...camera};
act("pointerdown", 300, 300, {button: 0}); act("pointermove", 380, 340); act("pointerup", 380, 340);
done.turned = camera.yaw !== before.yaw && camera.pitch !== before.pitch;
view.dispatchEvent(new WheelEvent("wheel", {deltaY: -300, clientX: 300, clientY: 300}));
done.zoomed = camera.zoom > 1.2;
view.ondblclick();
done.reset = camera.zoom === 1 && camera.yaw === START.yaw;
const key = name => view.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
key("ArrowRight"); key("+");
done.keyed = camera.yaw !== START.yaw && camera.zoom > 1;
key("0");
act("pointerdown", 200, 300, {pointerId: 7}); act("pointerdown", 300, 300, {pointerId: 8});
act("pointermove", 400, 300, {pointerId: 8});
done.pinched = camera.zoom > 1.9 && camera.yaw === START.yaw;
view.onpointerup({pointerId: 7}); view.onpointerup({pointerId: 8});
key("0");
document.querySelectorAll("#layers input").forEach(layer => { layer.checked = false; layer.onchange(); });
done.hidden = drawn();
document.querySelectorAll("#presets button")[1].click();
drawn();
const i = ids.findIndex(id => id >= 0), box = view.getBoundingClientRect();
act("pointermove", box.left + (i % view.width + 0.5) / ratio, box.top + ((i / view.width | 0) + 0.5) / ratio);
done.tip = $("tip").textContent;
document.title = JSON.stringify(done);
</script>
"""


def test_the_page_works_in_a_browser(toy_run, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium or chrome to run the page")
    made = toy_run()
    run(made.yinf[0], "--out", tmp_path, "--only", "html", "--threshold", 0.4)
    html = next(tmp_path.glob("*.html"))
    html.write_text(html.read_text().replace("</body>", VISIT + "</body>"))
    options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --window-size=900,700".split()
    options += [f"--user-data-dir={tmp_path}/user", "--dump-dom", html.as_uri()]
    text = subprocess.run([browser, *options], capture_output=True, text=True, timeout=400).stdout
    if 'id="event"' not in text:  # e.g. a snap, which may not read temporary folders
        pytest.skip(f"needs a browser that can open a local file: {browser} cannot")
    found = json.loads(Page(text).texts["title"])
    assert found["errors"] == []
    event = made.events["Mu"][0]
    true = event.labels > 0.001
    for threshold, status in ((0.4, found["status"]), (0.8, found["raised"])):
        called = event.scores.astype(float) > threshold
        assert f"purity {(called & true).sum() / called.sum():.3f}" in status
        assert f"efficiency {(called & true).sum() / true.sum():.3f}" in status
    assert found["turned"]
    assert found["zoomed"]
    assert found["reset"]
    assert found["keyed"]
    assert found["pinched"]
    assert found["start"] > found["hidden"]  # points, and then only the box
    assert "score" in found["tip"]
    assert "charge" in found["tip"]


@pytest.mark.parametrize("truth", [True, False])
def test_xy_event_before_inference(toy_run, tmp_path, truth):
    made = toy_run(truth=truth)
    assert run(made.xy[0], "--out", tmp_path, "--true-cut", "5000e", "--units", "cells") == 0
    data = event_of(Page(next(tmp_path.glob("*.html")).read_text()))
    event = made.events["Mu"][0]
    assert data["has_truth"] == truth
    assert "scores" not in data
    assert data["unit"] == "cells"
    np.testing.assert_array_equal(
        data["flags"] & 2 > 0, np.r_[event.labels > 5000, [True] * 3] if truth else 0 * event.labels
    )
    assert drawn(next(tmp_path.glob("*.png"))).std() > 0.02


def test_wire_image_has_every_signal(tmp_path):
    tick, channel = np.array([10, 3000, 5999]), np.array([0, 1700, 2559])
    image = WireImage(
        "wires", 0, 6000, 2560, tick, channel, np.array([900.0, 5000.0, 20000.0]), (("U", 0, 800),)
    )
    figure = draw_wires(image)
    shown = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    assert np.isfinite(shown).sum() == 3
    figure.savefig(tmp_path / "wires.png")
    assert drawn(tmp_path / "wires.png").std() > 0.02


def empty_scene(**known) -> Scene:
    none = np.zeros((0, 3), np.int32)
    return Scene("empty", 0, (6.0, 8.0, 8.0), none, np.zeros(0), **known)


def test_an_event_without_voxels_is_still_displayed(tmp_path):
    scene = empty_scene(scores=np.zeros(0), is_true=np.zeros(0, bool), true_charge=np.zeros(0))
    draw_scene(scene, 0.5).savefig(tmp_path / "empty.png")
    assert len(event_of(Page(page(scene, 0.5, region_of([scene]))))["coords"]) == 0


def test_a_title_cannot_break_the_page():
    none = np.zeros((0, 3), np.int32)
    scene = Scene("</script><b>x", 0, (6.0, 8.0, 8.0), none, np.zeros(0), truth_unit="</script>")
    found = Page(page(scene, 0.5, region_of([scene])))
    assert found.texts["title"] == "</script><b>x"
    assert event_of(found)["truth_unit"] == "</script>"


def test_charge_is_compared_with_the_truth(toy_run, tmp_path, capsys):
    made = toy_run(kind="electrons")
    assert run(made.yinf[0], "--out", tmp_path) == 0
    png, html = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert drawn(png).std() > 0.02
    data, event = event_of(Page(html.read_text())), made.events["Mu"][0]
    np.testing.assert_array_equal(data["predicted"][: len(event.coords)], event.scores * 20000)
    assert "scores" not in data


def test_only_a_box_is_drawn_and_counted(toy_run, tmp_path):
    made = toy_run()
    run(made.xy[0], "--out", tmp_path, "--units", "cells", "--box", "10:30,,:20", "--only", "html")
    data = event_of(Page(next(tmp_path.glob("*.html")).read_text()))
    x, _, z = made.events["Mu"][0].coords.T
    found = data["coords"].reshape(-1, 3)[(data["flags"] & 1) > 0]
    np.testing.assert_array_equal(found, made.events["Mu"][0].coords[(x >= 10) & (x < 30) & (z < 20)])
    assert data["low"][0] == 10
    assert data["high"][2] == 20
    for box, message in (("1:2", "three ranges"), ("5:4,,", "empty"), ("900:,,", "holds nothing")):
        with pytest.raises(DisplayError, match=message):
            run(made.xy[0], "--out", tmp_path, "--box", box)


def test_several_runs_side_by_side(toy_run, tmp_path, capsys):
    made = toy_run()
    (first,) = (path for path in made.yinf if "Mu" in path.name)
    second = made.folder.parent / "other" / "inference" / first.name
    second.parent.mkdir(parents=True)
    shutil.copy(first, second)
    of_mu = [first, second]
    assert run(*of_mu, "--event", 12, "--out", tmp_path / "pictures") == 0
    png, html = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert png.name == "epoch3-batch0-reco_Mu_001_yinf-TPC1-event12-compared.png"
    assert html.name == "epoch3-batch0-reco_Mu_001_yinf-TPC1-event12-compared.html"
    assert drawn(png).std() > 0.02
    data, event = event_of(Page(html.read_text())), made.events["Mu"][2]
    assert data["others"] == ["other: epoch3-batch0-reco_Mu_001_yinf-TPC1, event 12"]
    theirs = data["coords"].reshape(-1, 3)[data["flags"] == 4]
    np.testing.assert_array_equal(theirs, event.coords[event.scores.astype(float) > 0.35])
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted([png.name, html.name])


def test_voxels_beside_waveforms_are_projected_onto_the_wires(toy_run, tmp_path, capsys):
    made = toy_run()
    wire = tmp_path / "reco_singleMu_001_wire-TPC1.h5"
    attributes = {
        "event_type": "Mu", "index": 1, "product": "wire", "tpc": 1, "geometry": "pdsp", "geometry_digest": "",
        "generator": "simulation", "n_ticks": 6000, "n_channels": 2560,
    }  # fmt: skip
    with parsed.wire_writer(wire, attributes) as writer:
        for event_id in (10, 11, 12):
            parsed.append_waveform(writer, event_id, [5, 90], [700, 2100], [900.0, 800.0])
    out = tmp_path / "pictures"
    assert run(wire, made.yinf[0], "--event", 11, "--out", out, "--only", "png") == 0
    assert run(wire, "--event", 11, "--out", out) == 0
    printed = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert printed == [
        "reco_singleMu_001_wire-TPC1-event11-channels.png",
        "epoch3-batch0-reco_Mu_001_yinf-TPC1-event11.png",
        "reco_singleMu_001_wire-TPC1-event11.png",
    ]
    assert sorted(printed) == sorted(path.name for path in out.iterdir())
    together, alone = (drawn(out / name) for name in (printed[0], printed[2]))
    assert together.shape[0] > 1.4 * alone.shape[0]
    with pytest.raises(DisplayError, match="no HTML page"):
        run(wire, "--only", "html", "--out", out)


def test_results_of_different_files_are_not_compared(toy_run, tmp_path):
    made = toy_run()
    with pytest.raises(DisplayError, match="do not belong to the same xy file"):
        run(made.yinf[0], made.yinf[1], "--event", 10, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_displayed(toy_run, tmp_path):
    made = toy_run()
    with pytest.raises(DisplayError, match="it has 10, 11, 12"):
        run(made.xy[0], "--event", 3, "--out", tmp_path)
    with pytest.raises(DisplayError, match="there is no file"):
        run(tmp_path / "nothing.h5")
