"""A report's files: text, tables, pictures, and one page with all of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcreco.experiments.icecube.analysis.results import Results
from hpcreco.experiments.icecube.analysis.statistics import Row, coverage, pulls, resolutions, summary
from hpcreco.shards import atomic


def write(folder: Path, results: Results, with_pictures: bool = True) -> str:
    """Write the report of `results` into `folder`; returns its text."""
    folder.mkdir(parents=True, exist_ok=True)
    heading = {
        "model": ", ".join(results.models),
        "files": ", ".join(map(str, results.paths[:3])) + (" ..." if len(results.paths) > 3 else ""),
        "seed": ", ".join(results.settings.get("seed", ())),
        "minimiser": results.settings.get("reco_optimizer_interface", ""),
        "free parameters": ", ".join(results.free),
    }
    sections: list[tuple[str, str]] = []
    tables = {"fits": summary(results), "resolution": resolutions(results), "pulls": pulls(results)}
    text = _text(heading, tables, results)
    _put(folder / "report.txt", text)
    for name, rows in tables.items():
        if rows:
            write_csv(folder / f"{name}.csv", rows)
    if with_pictures:
        sections = _pictures(folder, results)
    from hpcreco.experiments.icecube.analysis import page

    titles = {"fits": "Fits", "resolution": "Resolutions", "pulls": "Pulls"}
    listed = [(titles[name], page.table(rows)) for name, rows in tables.items() if rows]
    _put(folder / "report.html", page.page("Reconstruction", heading, [*listed[:1], *sections, *listed[1:]]))
    return text


def _pictures(folder: Path, results: Results) -> list[tuple[str, str]]:
    from hpcreco.experiments.icecube.analysis import page
    from hpcreco.experiments.icecube.analysis.figures import DPI, pictures

    titles = {
        "resolution": "Resolution",
        "energy": "Energy",
        "pulls": "Pulls",
        "coverage": "Coverage",
        "times": "Pulse times",
        "goodness": "Goodness of fit",
        "loss": "Fit against truth",
    }
    sections = []
    for name, picture in pictures(results).items():
        content = page.png(picture.figure, DPI)
        with atomic(folder / f"{name}.png") as temporary:
            temporary.write_bytes(content)
        write_csv(folder / f"{name}.csv", picture.rows)
        sections.append((titles[name], page.image(content, picture.caption)))
    return sections


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows with a header of all their names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _put(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def _text(heading: Mapping[str, object], tables: Mapping[str, Sequence[Row]], results: Results) -> str:
    lines = [f"{key:16s} {value}" for key, value in heading.items() if value]
    for name, rows in tables.items():
        if rows:
            lines += ["", name, *_aligned(rows)]
    found = coverage(results)
    if found is not None:
        import numpy as np

        lines += ["", "coverage: share of events whose truth lies within the region of 68.3 % probability"]
        lines += [f"  {n}: {np.interp(0.683, found.nominal, s):.3f}" for n, s in found.found.items()]
    return "\n".join(lines) + "\n"


def _aligned(rows: Sequence[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(rows) == 1:
        return [f"  {name:20s} {_shown(rows[0][name])}" for name in names]
    cells = [names, *([_shown(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
    return ["  " + "  ".join(text.rjust(w) for text, w in zip(line, widths, strict=True)) for line in cells]


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
