"""What benchmarks claim: read as written, compared with what was, put where people look."""

from __future__ import annotations

import csv
import importlib
import sys
from types import ModuleType

import pytest

BENCHMARK = """
import sys
from pathlib import Path
import figures
out = Path(sys.argv[sys.argv.index("--out") + 1])
figures.write([figures.Figure("hare / tortoise", [{values}], bar=2)], out / "{name}.figures.csv")
sys.exit({code})
"""


@pytest.fixture(scope="module")
def figures(repository) -> ModuleType:
    """tools/bench/figures.py."""
    return beside(repository, "figures")


@pytest.fixture(scope="module")
def speed(repository, figures) -> ModuleType:
    """tools/bench/speed.py."""
    return beside(repository, "speed")


def beside(repository, name: str) -> ModuleType:
    """A script of tools/bench, which import each other by name."""
    sys.path.insert(0, str(repository / "tools" / "bench"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture
def bench(speed, figures, repository, tmp_path, monkeypatch):
    """Runs speed.py on two made-up benchmarks of given values in a folder of its own."""
    home = tmp_path / "bench"
    (home / "results").mkdir(parents=True)
    (home / "figures.py").write_text((repository / "tools/bench/figures.py").read_text())
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- speed: begin -->\n\n<!-- speed: end -->\nafter\n")
    for name, value in (("HERE", home), ("RESULTS", home / "results"), ("README", readme)):
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(speed, "BENCHMARKS", ("sprint", "marathon"))

    def run(values: dict[str, str], *arguments: str, code: int = 0) -> int:
        for name, numbers in values.items():
            (home / f"{name}.py").write_text(BENCHMARK.format(values=numbers, name=name, code=code))
        against = str(home / "results" / "speed.csv")
        sets = ["speed.py", *values, "--out", str(tmp_path / "out"), "--against", against, *arguments]
        monkeypatch.setattr(sys, "argv", sets)
        return speed.main()

    run.home, run.readme, run.out = home, readme, tmp_path / "out"
    return run


def test_a_row_is_read_as_it_was_written(figures, tmp_path):
    path = tmp_path / "x.csv"
    given = [
        figures.Figure("a, b / c", [1.0, 2.0, 3.0, 4.0], bar=2.5),
        figures.Figure("d", [0.5], "lower"),
    ]
    written = figures.write(given, path)
    first, second = figures.read(path)
    assert [first, second] == written
    assert (first.quartile_1, first.median, first.quartile_3, first.rounds) == (1.75, 2.5, 3.25, 4)
    assert (first.reached, second.reached, second.bar) == (True, None, None)


def test_a_bar_is_reached_from_the_better_side(figures):
    high, low = figures.Figure("x", [3.0], "higher", 2.0), figures.Figure("x", [3.0], "lower", 2.0)
    assert figures.summary(high).reached
    assert not figures.summary(low).reached


@pytest.mark.parametrize(
    ("better", "old", "new", "verdict"),
    [
        ("higher", (2.0, 1.9, 2.1), (3.0, 2.9, 3.1), 1.5),
        ("lower", (2.0, 1.9, 2.1), (3.0, 2.9, 3.1), 2 / 3),
        ("lower", (3.0, 2.9, 3.1), (2.0, 1.9, 2.1), 1.5),
        ("higher", (2.0, 1.0, 3.0), (3.0, 2.9, 3.1), 1.0),  # the spreads touch
        ("higher", (2.0, 1.99, 2.01), (2.05, 2.04, 2.06), 1.0),  # too small a change
    ],
)
def test_what_moved(speed, figures, better, old, new, verdict):
    rows = [figures.Row("x", *values, 5, better, None) for values in (old, new)]
    assert speed.moved(*rows) == pytest.approx(verdict)


def test_kept_results_hold_the_table_the_picture_and_the_readme(bench):
    assert bench({"sprint": "3, 4, 5", "marathon": "1, 1, 1"}, "--keep") == 0
    with (bench.home / "results" / "speed.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["benchmark"], row["median"]) for row in rows] == [("sprint", "4.0"), ("marathon", "1.0")]
    assert (bench.home / "results" / "speed.png").stat().st_size > 1000
    assert not list(bench.home.glob("results/*.figures.csv"))
    text = bench.readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "| hare / tortoise | 4 | 3.5 to 4.5 | ≥ 2 |" in text
    assert "| hare / tortoise | 1 | 1 to 1 | ≥ 2, not reached |" in text


def test_a_figure_that_got_worse_fails_and_is_named(bench, capsys):
    bench({"sprint": "3, 4, 5", "marathon": "1, 1, 1"}, "--keep")
    assert bench({"sprint": "2, 2, 2", "marathon": "9, 9, 9"}) == 1
    printed = capsys.readouterr().out
    assert "WORSE: hare / tortoise: 4 -> 2" in printed
    assert "BETTER: hare / tortoise: 1 -> 9" in printed
    assert bench({"sprint": "3, 4, 5"}) == 0
    assert "nothing got worse" in capsys.readouterr().out


def test_keeping_one_benchmark_keeps_the_others_rows(bench):
    bench({"sprint": "3, 4, 5", "marathon": "1, 1, 1"}, "--keep")
    bench({"sprint": "7, 7, 7"}, "--keep")
    with (bench.home / "results" / "speed.csv").open(newline="") as stream:
        assert [row["median"] for row in csv.DictReader(stream)] == ["7.0", "1.0"]


def test_a_benchmark_that_fails_loses_nothing_and_is_named(bench, capsys):
    bench({"sprint": "3, 4, 5"}, "--keep")
    assert bench({"sprint": "9, 9, 9"}, "--keep", code=3) == 1
    assert "sprint failed" in capsys.readouterr().out
    with (bench.home / "results" / "speed.csv").open(newline="") as stream:
        assert [row["median"] for row in csv.DictReader(stream)] == ["4.0"]


def test_a_readme_without_marks_is_refused(speed):
    with pytest.raises(ValueError, match="speed: begin"):
        speed.with_table("no marks\n", "table")


def test_every_benchmark_exists(speed, repository):
    for name in speed.BENCHMARKS:
        assert (repository / "tools/bench" / f"{name}.py").is_file()
