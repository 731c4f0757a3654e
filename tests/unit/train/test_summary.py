"""Summary files: cut exactly, nothing lost."""

import math

import pytest

from hpcreco.train.summary import Summary, SummaryError, read

COLUMNS = ("epoch", "loss", "stage")


def filled(path, epochs):
    summary = Summary(path, COLUMNS)
    summary.start()
    for epoch in range(epochs):
        summary.append({"epoch": epoch, "loss": 1.0 / (epoch + 1), "stage": "main"})
    return summary


def test_rows_after_the_resumed_epoch_are_cut_and_kept_as_bak(tmp_path):
    path = tmp_path / "summaries.csv"
    summary = filled(path, 5)
    before = path.read_text()
    summary.resume(2)
    assert path.read_text() == "".join(before.splitlines(keepends=True)[:4])
    assert (tmp_path / "summaries.csv.bak").read_text() == before


def test_a_row_that_was_being_written_when_the_run_was_killed_is_dropped(tmp_path):
    path = tmp_path / "summaries.csv"
    summary = filled(path, 3)
    whole = path.read_text()
    path.write_text(whole + "3\t0.1")
    summary.resume(3)
    assert path.read_text() == whole


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "summaries.csv"
    filled(path, 1)
    with pytest.raises(SummaryError, match=r"summaries\.csv"):
        Summary(path, ("epoch", "other")).resume(0)
    with pytest.raises(SummaryError, match="stage"):
        Summary(path, COLUMNS).append({"epoch": 1, "loss": 0.1})


def test_numbers_come_back(tmp_path):
    path = tmp_path / "summaries.csv"
    summary = Summary(path, ("epoch", "loss", "acc"))
    summary.start()
    summary.append({"epoch": 0, "loss": 1.25e-7, "acc": float("nan")})
    (row,) = read(path)
    assert row["loss"] == 1.25e-7
    assert math.isnan(row["acc"])
