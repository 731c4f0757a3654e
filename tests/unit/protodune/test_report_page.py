"""The page of a report, what is kept between two reports, charge, other reconstructions, runs side by side."""

import csv
import re

import numpy as np
import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import EXPERIMENT, parsed
from hpcreco.experiments.protodune.analysis import collect, kept, statistics
from hpcreco.experiments.protodune.analysis.collect import Inputs
from hpcreco.experiments.protodune.analysis.join import JoinError
from hpcreco.experiments.protodune.analysis.statistics import Options
from hpcreco.pages import page, training

from .conftest import _attributes, write_xy
from .test_report import run, table

SUMMARIES = "epoch\ttrain_loss\tvalid_loss\tlr\ttrain_time\n0\t0.5\t0.4\t0.01\t9\n1\t0.3\t0.35\t0.001\t9\n"


def same(a, b):
    """Two statistics hold the same numbers."""
    assert a.sample.keys == b.sample.keys
    for name in ("scores", "true", "ghost", "true_charge", "missed"):
        assert np.array_equal(getattr(a.sample, name), getattr(b.sample, name)), name
    for name, scan in a.sample.scans.items():
        assert np.array_equal(scan.purity, b.sample.scans[name].purity)
        assert np.array_equal(scan.efficiency, b.sample.scans[name].efficiency)
        assert scan.n_events == b.sample.scans[name].n_events
    assert set(a.detail.arrays) == set(b.detail.arrays)
    for name, array in a.detail.arrays.items():
        assert np.array_equal(array, b.detail.arrays[name], equal_nan=True), name


def test_the_page_holds_all_and_needs_no_network(toy_run):
    made = toy_run()
    (made.folder / "summaries.csv").write_text(SUMMARIES)
    run(made.folder, pictures=True)
    folder = made.folder / "report"
    text = (folder / "report.html").read_text()
    pictures = {p.stem for p in folder.glob("*.png")}
    assert text.count("data:image/png;base64,") == len(pictures) > 8
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text
    tables = {p.stem for p in folder.glob("*.csv")}
    named = {"distances": "error_distances", "missing": "missing_charge", "segments": "segments"}
    for name in pictures:
        assert name in tables or named.get(name.split("_")[0]) in tables, name
    assert "width=device-width" in text


def test_text_in_a_page_is_escaped():
    text = page.page("a<b", {"x": "<i>"}, [("s & t", page.table([{"n": "<script>", "v": float("nan")}]))])
    assert "<script>" not in text and "<i>" not in text and "a<b" not in text
    assert "nan" not in text


def test_what_was_counted_is_read_again_exactly(toy_run, tmp_path):
    made = toy_run()
    options = Options()
    source = statistics.plan(made.yinf[0], options, (), (), None)
    direct = statistics.compute(source, options, ())
    kept.write(tmp_path / "s.h5", direct, source.fingerprint)
    again, fingerprint = kept.read(tmp_path / "s.h5")
    assert fingerprint == source.fingerprint
    same(direct, again)


def test_only_what_changed_is_counted_again(toy_run, capsys):
    made = toy_run()
    inputs = Inputs(made.folder)
    collect.collect(inputs, Options())
    assert "2 done" in capsys.readouterr().out
    first = collect.collect(inputs, Options())
    assert "2 already finished" in capsys.readouterr().out
    collect.collect(inputs, Options(all_truth=True))
    assert "2 done" in capsys.readouterr().out
    files = sorted((made.folder / "statistics").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    collect.collect(inputs, Options(all_truth=True))
    out = capsys.readouterr().out
    assert "1 already finished" in out and "1 done" in out
    last = collect.collect(inputs, Options())
    for a, b in zip(first.samples, last.samples, strict=True):
        same(a, b)


def test_a_run_without_inference_shows_its_training(tmp_path, capsys):
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "summaries.csv").write_text(SUMMARIES)
    assert run(folder) == 0
    assert "hpcreco infer" in capsys.readouterr().out
    rows = table(folder / "report" / "training_loss.csv")
    assert [(r["part"], r["epoch"], r["loss"]) for r in rows] == [
        ("train", "0", "0.5"), ("train", "1", "0.3"), ("valid", "0", "0.4"), ("valid", "1", "0.35"),
    ]  # fmt: skip


def test_training_curves_of_two_runs_with_other_columns():
    one = [{"epoch": 0, "train_loss": 1.0, "valid_loss": -1.0}]
    two = [{"epoch": 0, "train_loss": 2.0, "train_acc": 0.5}]
    made = training.pictures({"a": one, "b": two})
    assert set(made) == {"training_loss", "training_acc"}
    assert [(r["run"], r["part"], r["loss"]) for r in made["training_loss"].rows] == [
        ("a", "train", 1.0),
        ("b", "train", 2.0),
    ]


def test_runs_and_epochs_side_by_side(toy_run, capsys):
    made = toy_run(epochs=(3, 12))
    assert run(f"{made.folder}@3", f"{made.folder}@12", pictures=True) == 0
    rows = table(made.folder / "comparison" / "runs.csv")
    assert [(r["sample"], r["run"]) for r in rows] == [
        (s, f"run@{e}") for s in ("Electron", "Mu") for e in (3, 12)
    ]
    assert rows[0]["auc_pe"] == rows[1]["auc_pe"]
    assert "the same events" in capsys.readouterr().out
    assert (made.folder / "comparison" / "runs_Mu.png").is_file()


def write_charge(path, xy, charges, kind="electrons"):
    schema = EXPERIMENT.schema("yinf")
    with shards.Shard(xy) as shard:
        known = {
            "experiment": "protodune", "epoch": 3, "checkpoint_digest": "beef" * 8, "kind": kind,
            "input_file": str(xy), "input_digest": shard.digest,
        }  # fmt: skip
        coords = [shard.read(k, "voxels", ["coords"])["coords"] for k in range(shard.n_events)]
    with shards.ShardWriter(path, schema, _attributes(schema, known)) as writer:
        for k, charge in enumerate(charges):
            writer.append(10 + k, {"voxels": {"coords": coords[k], "charge": charge}})


def test_charge_with_and_without_a_ghost_mask(toy_run, tmp_path, capsys):
    made = toy_run()
    for xy, yinf, events in zip(made.xy, made.yinf, made.events.values(), strict=True):
        charges = [(0.9 * e.labels + 100).astype(np.float32) for e in events]
        write_charge(tmp_path / "charge" / yinf.name, xy, charges)
    assert run(tmp_path / "charge", "--out", tmp_path / "plain") == 0
    assert run(tmp_path / "charge", "--mask", made.folder, "--out", tmp_path / "masked", pictures=True) == 0
    plain = {r["event"]: r for r in table(tmp_path / "plain" / "charge_events.csv")}
    masked = {r["event"]: r for r in table(tmp_path / "masked" / "charge_events.csv")}
    for k, event in enumerate(made.events["Mu"]):
        key = f"{made.xy[0].stem}:{10 + k}"
        true = event.truth_charge.sum()
        assert float(plain[key]["true"]) == pytest.approx(true, rel=1e-5)
        assert float(plain[key]["measured"]) == pytest.approx((0.9 * event.labels + 100).sum(), rel=1e-5)
        passed = event.scores >= 0.35
        assert float(masked[key]["measured"]) == pytest.approx(
            (0.9 * event.labels + 100)[passed].sum(), rel=1e-5
        )
        true = event.labels[passed & (event.labels > 0)]
        residual = (0.9 * true + 100 - true) / true
        assert float(masked[key]["bias"]) == pytest.approx(residual.mean(), rel=1e-3)
    assert "charge bias" in capsys.readouterr().out
    assert (tmp_path / "masked" / "residuals_Mu.png").is_file()


@pytest.mark.parametrize(("product", "shift"), [("wirecell", 0), ("spacepoint", 500)])
def test_other_reconstructions_are_judged_by_the_same_truth(toy_run, tmp_path, product, shift):
    made = toy_run()
    event = made.events["Mu"][0]
    xy = write_xy(tmp_path / "one" / "batch0-reco_Mu_001_xy-TPC1.h5", [event], index=1)
    from .conftest import write_yinf

    write_yinf(tmp_path / "run1" / "epoch3-batch0-reco_Mu_001_yinf-TPC1.h5", xy, [event])
    above = event.truth[event.truth_charge > 5000][:20]
    wrong = event.coords[event.labels == 0][:5]
    cells = np.concatenate([above, wrong]) * [8, 4, 4] + [4, 2, 2] - [shift, 0, 0]
    reference = tmp_path / f"reco_Mu_001_{product}-TPC1.h5"
    head = {"event_type": "Mu", "index": 1, "product": product, "tpc": 1, "geometry": "pdsp"}
    head |= {"geometry_digest": "", "generator": "test"}
    with parsed.truth_writer(reference, head) as writer:
        parsed.append_truth(writer, 10, cells, np.full(len(cells), 5e3))
    run(tmp_path / "run1", "--compare", reference, "--true-cut", "5000e", pictures=True)
    (row,) = table(tmp_path / "run1" / "report" / "compared_events.csv")
    assert int(row["voxels"]) == 25
    assert float(row["purity"]) == pytest.approx(0.8)
    assert float(row["efficiency"]) == pytest.approx(20 / (event.truth_charge > 5000).sum(), rel=1e-5)
    assert (tmp_path / "run1" / "report" / "compared.png").is_file()
    with pytest.raises(JoinError, match="spacepoint"):
        run(tmp_path / "run1", "--compare", "reco_Mu_001_wire-TPC1.h5")


def test_particles_and_segments_reach_the_tables(toy_run):
    made = toy_run()
    run(made.folder)
    with (made.folder / "report" / "segments.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    counts = {r["sample"]: r for r in table(made.folder / "report" / "counts.csv")}
    for name in made.events:
        own = [r for r in rows if r["sample"] == name]
        for column in ("n_T", "n_TP_naive", "n_FP_naive"):
            assert sum(int(r[column]) for r in own) == int(counts[name][column])
    rows = [r for r in table(made.folder / "report" / "missing_charge.csv") if r["sample"] == "Mu"]
    assert sum(int(r["true_cells"]) for r in rows) == int(counts["Mu"]["n_T"])
