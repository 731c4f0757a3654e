"""Several runs side by side: curves by sample, figures of merit, training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpcreco.experiments.protodune.analysis import compare
from hpcreco.experiments.protodune.analysis.collect import Collected
from hpcreco.pages import page, training
from hpcreco.pages.files import replacing, write_rows, write_text
from hpcreco.pages.picture import write_pictures

FIGURES = ("auc_pe", "break_even", "threshold", "purity", "efficiency")


def write(
    folder: Path,
    runs: dict[str, Collected],
    folders: Mapping[str, Path],
    threshold: float | None,
    with_pictures: bool = True,
) -> str:
    """Write the comparison into `folder`; returns its text."""
    rows = compare.run_rows(runs, threshold)
    same = compare.same_events(runs)
    note = (
        "all runs score the same events"
        if same
        else "the runs score different events: differences may be theirs"
    )
    heading = {name: f"epoch {c.epoch}, {c.files} files, {c.describe(False)}" for name, c in runs.items()}
    heading["events"] = note
    lines = [f"{name:12s} {value}" for name, value in heading.items()] + [""]
    lines += [
        f"{r['sample']:12s} {r['run']:24s} " + "  ".join(f"{n} {r[n]:.3f}" for n in FIGURES) for r in rows
    ]
    sections = []
    with replacing(folder) as new:
        write_rows(new / "runs.csv", rows)
        if with_pictures:
            samples = list(dict.fromkeys(row["sample"] for row in rows))
            shown = write_pictures(new, {f"runs_{s}": compare.draw_runs(runs, s) for s in samples})
            sections.append(("Purity and efficiency", shown + page.table(rows)))
            trained = training.runs_with_summaries(folders)
            if trained:
                sections.append(("Training", write_pictures(new, training.pictures(trained))))
        else:
            sections.append(("Purity and efficiency", page.table(rows)))
        write_text(new / "report.html", page.page("Runs side by side", heading, sections))
        write_text(new / "report.txt", "\n".join(lines) + "\n")
    return "\n".join(lines) + "\n"
