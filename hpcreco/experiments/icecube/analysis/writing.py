"""A report's files: text, tables, pictures, and one page with all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcreco.experiments.icecube.analysis.results import Results
from hpcreco.experiments.icecube.analysis.statistics import (
    Row,
    coverage,
    pulls,
    resolutions,
    summary,
    warnings,
)
from hpcreco.pages import page
from hpcreco.pages.files import replacing, write_rows, write_text


def write(folder: Path, results: Results, with_pictures: bool = True) -> str:
    """Write the report of `results` into `folder`; returns its text."""
    heading = {
        "model": ", ".join(results.models),
        "files": ", ".join(map(str, results.paths[:3])) + (" ..." if len(results.paths) > 3 else ""),
        "seed": ", ".join(results.settings.get("seed", ())),
        "minimiser": results.settings.get("reco_optimizer_interface", ""),
        "free parameters": ", ".join(results.free),
    }
    if said := warnings(results):
        heading["warning"] = "; ".join(said)
    sections: list[tuple[str, str]] = []
    tables = {"fits": summary(results), "resolution": resolutions(results), "pulls": pulls(results)}
    text = _text(heading, tables, results)
    titles = {"fits": "Fits", "resolution": "Resolutions", "pulls": "Pulls"}
    listed = [(titles[name], page.table(rows)) for name, rows in tables.items() if rows]
    with replacing(folder) as new:
        write_text(new / "report.txt", text)
        for name, rows in tables.items():
            if rows:
                write_rows(new / f"{name}.csv", rows)
        if with_pictures:
            sections = _pictures(new, results)
        content = page.page("Reconstruction", heading, [*listed[:1], *sections, *listed[1:]])
        write_text(new / "report.html", content)
    return text


def _pictures(folder: Path, results: Results) -> list[tuple[str, str]]:
    from hpcreco.experiments.icecube.analysis.figures import pictures
    from hpcreco.pages.picture import write_pictures

    titles = {
        "resolution": "Resolution",
        "energy": "Energy",
        "pulls": "Pulls",
        "coverage": "Coverage",
        "times": "Pulse times",
        "goodness": "Goodness of fit",
        "loss": "Fit against truth",
    }
    return [
        (titles[name], write_pictures(folder, {name: picture})) for name, picture in pictures(results).items()
    ]


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
