"""The report of a run: joined with the right files, right numbers, complete or not at all."""

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest

from hpcreco.experiments.protodune import report
from hpcreco.experiments.protodune.analysis.join import JoinError
from hpcreco.pages.files import ReportError
from hpcreco.yinf import YinfError

from .conftest import write_xy, write_yinf


def run(*arguments, pictures=False) -> int:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    options = [] if pictures else ["--no-pictures"]
    return report.run(parser.parse_args([str(a) for a in arguments] + options))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def expected(events, cut):
    truth = [e.labels > cut for e in events]
    return truth, [int((e.truth_charge > cut).sum()) for e in events]


CUTS = {
    (): (0.001, "0.001"),
    ("--true-cut", "5000e"): (5000, "5000"),
    ("--true-cut", "0.17MeV"): (5028, "5027.59"),
}


@pytest.mark.parametrize("flag", CUTS)
def test_counts_are_those_of_the_events(toy_run, capsys, flag):
    cut, said = CUTS[flag]
    made = toy_run()
    assert run(made.folder, *flag) == 0
    counts = {row["sample"]: row for row in table(made.folder / "report" / "counts.csv")}
    for name, events in made.events.items():
        truth, everything = expected(events, cut)
        row = counts[name]
        assert int(row["events"]) == len(events)
        assert int(row["candidates"]) == sum(len(e.coords) for e in events)
        assert int(row["n_T"]) == sum(everything)
        assert int(row["n_TP_naive"]) == sum(t.sum() for t in truth)
        assert int(row["n_FP_naive"]) == sum((~t).sum() for t in truth)
        assert float(row["tiling_efficiency"]) == pytest.approx(
            sum(t.sum() for t in truth) / sum(everything), rel=1e-5
        )
    out = capsys.readouterr().out
    assert "ghost:true" in out
    assert f"label > {said} e" in out


def test_curve_is_the_mean_of_the_events_and_all_truth_lowers_the_efficiency(toy_run):
    made = toy_run()
    run(made.folder)
    events = made.events["Mu"]
    truth, everything = expected(events, 0.001)
    rows = [
        r for r in table(made.folder / "report" / "curve.csv") if (r["sample"], r["kind"]) == ("Mu", "mean")
    ]
    assert len(rows) == 50
    row = rows[25]
    assert float(row["threshold"]) == 0.5
    called = [e.scores.astype(float) > 0.5 for e in events]
    hits = [(c & t).sum() for c, t in zip(called, truth, strict=True)]
    purity = np.mean([h / c.sum() for h, c in zip(hits, called, strict=True)])
    assert float(row["purity"]) == pytest.approx(purity, rel=1e-5)
    assert float(row["efficiency"]) == pytest.approx(
        np.mean([h / t.sum() for h, t in zip(hits, truth, strict=True)]), rel=1e-5
    )
    run(made.folder, "--all-truth", "--out", made.folder / "all")
    rows = [r for r in table(made.folder / "all" / "curve.csv") if (r["sample"], r["kind"]) == ("Mu", "mean")]
    assert float(rows[25]["purity"]) == pytest.approx(purity, rel=1e-5)
    assert float(rows[25]["efficiency"]) == pytest.approx(np.mean(np.divide(hits, everything)), rel=1e-5)


def test_baselines_are_listed_with_the_network(toy_run):
    made = toy_run()
    run(made.folder)
    rows = {(r["sample"], r["method"]): r for r in table(made.folder / "report" / "results.csv")}
    for method in (
        "network",
        "network, voxels pooled",
        "all ghost",
        "all true",
        "cut on V",
        "cut on min(V,X,U)",
    ):
        assert ("Mu", method) in rows
    assert rows["Mu", "all ghost"]["balanced_accuracy"] == "0.5"
    share = float(rows["Electron", "all true"]["purity"])
    assert float(rows["Electron", "all ghost"]["accuracy"]) == pytest.approx(1 - share)
    assert float(rows["Electron", "network"]["auc_pe"]) > share


def test_pictures_and_training_curves(toy_run):
    from matplotlib.image import imread

    made = toy_run()
    rows = ["epoch\ttrain_loss\tvalid_loss\ttrain_time", "0\t0.5\t0.4\t9", "1\t0.3\t0.35\t9"]
    (made.folder / "summaries.csv").write_text("\n".join(rows) + "\n")
    run(made.folder, pictures=True)
    for name in ("curve.png", "scores.png", "counts.png", "training_loss.png"):
        picture = imread(made.folder / "report" / name)
        assert min(picture.shape[:2]) > 200, name
        assert picture[..., :3].std() > 0.02, name
    assert not list(made.folder.glob(".report*"))


def test_data_without_truth(toy_run, capsys):
    made = toy_run(truth=False)
    assert run(made.folder, "--threshold", "0.3", pictures=True) == 0
    files = {p.name for p in (made.folder / "report").iterdir()}
    assert files == {
        "report.html",
        "report.txt",
        "counts.csv",
        "events.csv",
        "scores.csv",
        "scores.png",
        "counts.png",
    }
    rows = table(made.folder / "report" / "events.csv")
    kept = [int((e.scores.astype(float) > 0.3).sum()) for e in (*made.events["Electron"], *made.events["Mu"])]
    assert [int(r["kept"]) for r in rows] == kept
    assert "without truth" in capsys.readouterr().out


def test_the_last_epoch_is_reported_unless_another_is_named(toy_run, capsys):
    made = toy_run(epochs=(3, 12))
    run(made.folder)
    assert "epoch        12" in capsys.readouterr().out
    run(made.folder, "--epoch", 3)
    assert "epoch        3" in capsys.readouterr().out
    with pytest.raises(JoinError, match="epochs 3, 12"):
        run(made.folder, "--epoch", 4)


def test_a_changed_xy_file_is_refused_and_the_old_report_stays(toy_run):
    made = toy_run()
    run(made.folder)
    before = (made.folder / "report" / "report.txt").read_text()
    events = made.events["Mu"]
    write_xy(made.xy[0], events[::-1])
    with pytest.raises(YinfError) as error:
        run(made.folder)
    assert str(made.xy[0]) in str(error.value)
    assert str(made.yinf[0]) in str(error.value)
    assert (made.folder / "report" / "report.txt").read_text() == before


def test_moved_and_missing_xy_files(toy_run, tmp_path):
    made = toy_run()
    moved = tmp_path / "elsewhere"
    made.xy[0].parent.rename(moved)
    with pytest.raises(JoinError, match="--xy DIR"):
        run(made.folder)
    assert run(made.folder, "--xy", moved) == 0


def test_two_inferences_of_one_file_are_not_counted_twice(toy_run):
    made = toy_run()
    write_yinf(made.folder / "again" / made.yinf[0].name, made.xy[0], made.events["Mu"])
    with pytest.raises(JoinError, match="count twice"):
        run(made.folder)


def test_faces_with_another_order_of_planes_are_put_together(toy_run, tmp_path):
    made = toy_run()
    run(made.folder)
    other = toy_run_with_swapped_planes(made, tmp_path)
    run(other)
    by_order = [table(folder / "report" / "results.csv") for folder in (made.folder, other)]
    cuts = [
        {r["method"]: r["auc_pe"] for r in rows if r["sample"] == "Mu" and r["method"] == "cut on U"}
        for rows in by_order
    ]
    assert cuts[0] == cuts[1]


def toy_run_with_swapped_planes(made, tmp_path):
    folder = tmp_path / "swapped"
    for k, event in enumerate(made.events["Mu"]):
        xy = tmp_path / "xy2" / f"reco_Mu_{k:03d}_xy-TPC1.h5"
        if k == 1:
            from dataclasses import replace

            event = replace(event, features=event.features[:, ::-1].copy())
            write_xy(xy, [event], feature_names=["U", "X", "V"])
        else:
            write_xy(xy, [event])
        write_yinf(folder / f"epoch3-reco_Mu_{k:03d}_yinf-TPC1.h5", xy, [event])
    return folder


def test_what_cannot_be_reported(tmp_path):
    with pytest.raises(JoinError, match="there is no"):
        run(tmp_path / "nowhere")
    with pytest.raises(JoinError, match="hpcreco infer"):
        run(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("mine")


def test_a_folder_that_is_no_report_is_not_replaced(toy_run):
    made = toy_run()
    (made.folder / "notes").mkdir()
    (made.folder / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(ReportError, match="--out"):
        run(made.folder, "--out", made.folder / "notes")
    assert (made.folder / "notes" / "mine.txt").read_text() == "precious"
