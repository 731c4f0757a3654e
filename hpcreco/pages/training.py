"""What a training's summaries.csv shows, of one run or several: losses, metrics, learning rate and time by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.pages.picture import COLOURS, SIZE, Picture, Row, plain_ticks
from hpcreco.train import summary

FILE = "summaries.csv"
PARTS = (("train", "o-"), ("valid", "s--"))
#: columns that are not split into training and validation
WHOLE = {
    "lr": "Learning rate at the end of each epoch.",
    "gradient_norm": "Mean length of the gradient before clipping; a rise announces divergence.",
}
TIMES = ("train_time", "valid_time", "data_time")
CAPTIONS = {
    "loss": "What training minimises. Validation that rises while training falls is overfitting.",
    "auc_pe": "Area under purity against efficiency, of all voxels pooled; 1 is perfect.",
    "break_even": "Purity where it equals the efficiency.",
}

Rows = Sequence[Mapping[str, float]]


def runs_with_summaries(folders: Mapping[str, Path]) -> dict[str, Rows]:
    """Summaries by name of the run, of the folders that hold any epochs."""
    found = {
        name: summary.read(folder / FILE) for name, folder in folders.items() if (folder / FILE).is_file()
    }
    return {name: rows for name, rows in found.items() if rows}


def pictures(runs: Mapping[str, Rows]) -> dict[str, Picture]:
    """One picture per quantity, by file name ("training_loss", ...)."""
    columns = list(dict.fromkeys(c for rows in runs.values() for row in rows for c in row))
    split = [c.partition("_") for c in columns if c.startswith(("train_", "valid_"))]
    names = [n for n in dict.fromkeys(name for _, _, name in split) if not n.endswith(("time", "rate"))]
    made = {}
    for name in names:
        lines = {part: f"{part}_{name}" for part, _ in PARTS}
        made[name] = _picture(runs, lines, name, CAPTIONS.get(name, f"{name} of training and validation."))
    for name, caption in WHOLE.items():
        made[name] = _picture(runs, {"": name}, name, caption)
    times = {column.removesuffix("_time"): column for column in TIMES}
    made["time"] = _picture(
        runs, times, "seconds per epoch",
        "Wall time of an epoch; `data` is the part of training spent waiting for events.",
    )  # fmt: skip
    return {f"training_{name}": picture for name, picture in made.items() if picture is not None}


def write(folder: Path, runs: Mapping[str, Rows]) -> str:
    """A report of nothing but training: a page, pictures, CSV files and a text, which is returned."""
    from hpcreco.pages.files import replacing, write_text
    from hpcreco.pages.page import page
    from hpcreco.pages.picture import write_pictures

    lines = []
    for name, rows in runs.items():
        last = {k: v for k, v in rows[-1].items() if k.startswith(("train_", "valid_")) and np.isfinite(v)}
        lines.append(
            f"{name}: {len(rows)} epochs; the last: " + ", ".join(f"{k} {v:.4g}" for k, v in last.items())
        )
    text = "\n".join(lines) + "\n"
    with replacing(folder) as temporary:
        shown = write_pictures(temporary, pictures(runs))
        heading = {name: f"{len(rows)} epochs" for name, rows in runs.items()}
        write_text(temporary / "report.html", page("Training", heading, [("Training", shown)]))
        write_text(temporary / "report.txt", text)
    return text


def _picture(runs: Mapping[str, Rows], lines: Mapping[str, str], title: str, caption: str) -> Picture | None:
    """The columns `lines` (by label) of all runs against the epoch; None if nowhere is a number."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, layout="constrained")
    axis: Any = figure.add_subplot()
    styles = dict(zip(lines, ("o-", "s--", "^:"), strict=False))
    rows_out: list[Row] = []
    for k, (run, rows) in enumerate(runs.items()):
        epochs = _column(rows, "epoch")
        for j, (label, column) in enumerate(lines.items()):
            values = _column(rows, column)
            known = np.isfinite(values)
            if title == "loss" and label == "valid":
                known &= values != -1  # validation without truth
            if not known.any():
                continue
            colour = COLOURS[(k if len(runs) > 1 else j) % len(COLOURS)]
            said = " ".join(part for part in (run if len(runs) > 1 else "", label) if part)
            axis.plot(epochs[known], values[known], styles[label], color=colour, markersize=3.5, label=said)
            rows_out += [
                {"run": run, "part": label or title, "epoch": int(e), title: float(v)}
                for e, v in zip(epochs[known], values[known], strict=True)
            ]
    if not rows_out:
        return None
    axis.set(xlabel="epoch", title=title)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    if any(line.get_label() for line in axis.lines) and (len(lines) > 1 or len(runs) > 1):
        axis.legend()
    if (title in ("loss", "lr", "gradient_norm")) and all(row[title] > 0 for row in rows_out):  # type: ignore[operator]
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
    return Picture(figure, caption, rows_out)


def _column(rows: Rows, name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in rows], float)
