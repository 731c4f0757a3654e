#!/usr/bin/env python
"""Every benchmark, one table and one plot of what they claim, and what moved since the last committed results.

    python tools/bench/speed.py --out bench                  # all of them; leave the machine alone meanwhile
    python tools/bench/speed.py sparse tiling --out bench    # some
    python tools/bench/speed.py --keep                       # writes tools/bench/results and the table of README.md

Each benchmark is a process of its own, one after the other; its figures are ratios between peers of one run. Its
own tables and plots (NAME.csv, NAME.png) go to the same folder; the figures of all are put together in speed.csv and
speed.png and compared with tools/bench/results/speed.csv: a figure moved when its quartiles do not touch the old ones
and its median differs by more than 5 %. Exit code 1 when a benchmark fails or a figure moved for the worse.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import figures
from figures import Row

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE.parent.parent / "README.md"
BENCHMARKS = (
    "sparse",
    "sparse_regimes",
    "sparse_gpu",
    "tiling",
    "shard_read",
    "feeding",
    "training",
    "scaling",
    "start_up",
    "likelihood",
)
DETAILED = ("sparse_regimes",)  # too many figures for people's table: its own table and plot hold them
LEAST_CHANGE = 0.05  # smaller ones are this kind of machine's mood

Table = Mapping[tuple[str, str], Row]  # (benchmark, figure) -> row


def main() -> int:
    """Run, gather, compare, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), help="folder of the results (default %(default)s)"
    )
    parser.add_argument("--against", type=Path, default=RESULTS / "speed.csv", help="compare with this table")
    parser.add_argument(
        "--keep", action="store_true", help="write tools/bench/results and the table of README.md"
    )
    args = parser.parse_args()
    out = RESULTS if args.keep else args.out
    before = read(args.against) if args.against.is_file() else {}
    out.mkdir(parents=True, exist_ok=True)
    names = args.names or BENCHMARKS
    failed = [name for name in names if not run(name, out)]
    measured = gather(out, [name for name in names if name not in failed])
    anew = {name for name, _ in measured}  # one that failed, or needs a GPU, leaves the old figures
    others = {key: row for key, row in before.items() if key[0] not in anew}
    table = ordered({**others, **measured} if args.keep else measured)
    write(table, out / "speed.csv")
    main_table = {key: row for key, row in table.items() if key[0] not in DETAILED}
    plot(main_table, out / "speed.png")
    if args.keep:
        README.write_text(with_table(README.read_text(), markdown(main_table)))
    worse = say_what_moved(before, measured)
    for name in failed:
        print(f"{name} failed")
    return 1 if failed or worse else 0


def run(name: str, out: Path) -> bool:
    """Run one benchmark; whether it succeeded."""
    print(f"--- {name}", flush=True)
    (out / f"{name}.figures.csv").unlink(missing_ok=True)
    began = time.monotonic()
    code = subprocess.run([sys.executable, HERE / f"{name}.py", "--out", out], check=False).returncode
    print(f"--- {name}: {time.monotonic() - began:.0f} s", flush=True)
    return code == 0


# ---------------------------------------------------------------------------------------------- the table


def gather(folder: Path, names: Iterable[str]) -> dict[tuple[str, str], Row]:
    """What the benchmarks wrote; their own files of figures are then superfluous."""
    table = {}
    for name in names:
        path = folder / f"{name}.figures.csv"
        if path.is_file():  # one that needs a machine that is not here writes none
            table.update({(name, row.figure): row for row in figures.read(path)})
            path.unlink()
    return table


def ordered(table: Table) -> dict[tuple[str, str], Row]:
    """By benchmark in their order here, then as the benchmark wrote them."""
    return dict(sorted(table.items(), key=lambda item: BENCHMARKS.index(item[0][0])))


def write(table: Table, path: Path) -> None:
    """One row per figure, with the benchmark's name in front."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["benchmark", *figures.COLUMNS])
        for (name, _), row in table.items():
            writer.writerow([name, *figures.fields(row)])


def read(path: Path) -> dict[tuple[str, str], Row]:
    """The inverse of `write`."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {(row["benchmark"], row["figure"]): figures.parsed(row) for row in rows}


def markdown(table: Table) -> str:
    """The table for people."""
    lines = ["| what | measured | quartiles | bar |", "|---|---|---|---|"]
    for row in table.values():
        bar = ""
        if row.bar is not None:
            sign = "≥" if row.better == "higher" else "≤"
            bar = f"{sign} {row.bar:g}" + ("" if row.reached else ", not reached")
        quartiles = "" if row.rounds == 1 else f"{row.quartile_1:.3g} to {row.quartile_3:.3g}"
        median = f"{row.median:g}" if row.median >= 1000 else f"{row.median:.3g}"
        lines.append(f"| {row.figure} | {median} | {quartiles} | {bar} |")
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """`text` with the table between its two marks replaced. Raises ValueError when it has no such marks."""
    begin, end = "<!-- speed: begin -->\n", "\n<!-- speed: end -->"
    head, mark, rest = text.partition(begin)
    _, other, tail = rest.partition(end)
    if not (mark and other):
        raise ValueError(
            f"{README.name} has no lines {begin.strip()} and {end.strip()} to put the table between"
        )
    return head + mark + table + other + tail


# ---------------------------------------------------------------------------------------------- what moved


def moved(old: Row, new: Row) -> float:
    """New over old median, so that more is better; 1 where the change is within the spread."""
    apart = new.quartile_1 > old.quartile_3 or new.quartile_3 < old.quartile_1
    if not apart or abs(new.median - old.median) <= LEAST_CHANGE * abs(old.median):
        return 1.0
    ratio = new.median / old.median if old.median else float("inf")
    return ratio if new.better == "higher" else 1 / ratio if ratio else float("inf")


def say_what_moved(before: Table, now: Table) -> int:
    """Print what changed against the committed table; the number of figures that got worse."""
    worse = 0
    names = {name for name, _ in now}
    for key in [*now, *(key for key in before if key[0] in names and key not in now)]:
        if key not in before:
            print(f"new: {key[1]}: {now[key].median:g}")
        elif key not in now:
            print(f"gone: {key[1]}, it was {before[key].median:g}")
        elif (change := moved(before[key], now[key])) != 1:
            worse += change < 1
            verdict = "BETTER" if change > 1 else "WORSE"
            print(f"{verdict}: {key[1]}: {before[key].median:g} -> {now[key].median:g}")
    if not worse:
        print("nothing got worse" if before else "no earlier table to compare with")
    return worse


# ---------------------------------------------------------------------------------------------- the picture


def plot(table: Table, path: Path) -> None:
    """How far each figure is beyond its bar, with quartiles; right of the line is good."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in table.values() if row.bar]
    figure, axis = plt.subplots(figsize=(10, 1 + 0.28 * len(rows)), layout="constrained")
    for number, row in enumerate(rows):
        low, middle, high = sorted(
            margin(value, row) for value in (row.quartile_1, row.median, row.quartile_3)
        )
        colour = "tab:green" if row.reached else "tab:red"
        axis.errorbar(
            middle, number, xerr=[[middle - low], [high - middle]], fmt="o", color=colour, capsize=3
        )
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(
        range(len(rows)), [f"{row.figure}: {row.median:g}, bar {row.bar:g}" for row in rows], fontsize=8
    )
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("how many times better than the bar (medians, quartiles)")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def margin(value: float, row: Row) -> float:
    """How many times better than the bar a value is."""
    assert row.bar
    value = max(value, 1e-9)
    return value / row.bar if row.better == "higher" else row.bar / value


if __name__ == "__main__":
    sys.exit(main())
