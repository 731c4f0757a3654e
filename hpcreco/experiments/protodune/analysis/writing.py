"""A report's files: text, tables, pictures, and one page with all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcreco.experiments.protodune.analysis import detail_tables, particle_table
from hpcreco.experiments.protodune.analysis.results import baselines, network, working_index
from hpcreco.experiments.protodune.analysis.statistics import Statistics
from hpcreco.experiments.protodune.analysis.tables import text_report, write_tables
from hpcreco.pages import page, training
from hpcreco.pages.files import replacing, write_rows, write_text
from hpcreco.pages.picture import Picture, write_pictures

Rows = list[dict[str, Any]]


def write(
    folder: Path,
    heading: Mapping[str, object],
    samples: Sequence[Statistics],
    threshold: float | None,
    trained: Mapping[str, training.Rows],
    compared: Rows,
    with_pictures: bool = True,
) -> str:
    """Write the report of one run into `folder`; returns its text."""
    scored = [made for made in samples if made.kind == "probability"]
    measured = [made for made in samples if made.kind != "probability"]
    chosen = [(made, working_index(made.sample, threshold)) for made in scored]
    tables = _tables(chosen, measured, compared)
    text = _text(heading, scored, threshold, tables)
    with replacing(folder) as new:
        write_text(new / "report.txt", text)
        if scored:
            write_tables(new, [made.sample for made in scored], threshold)
        for name, rows in tables.items():
            if rows:
                write_rows(new / f"{name}.csv", rows)
        sections = _sections(new, chosen, measured, threshold, trained, tables, compared, with_pictures)
        title = "Charge" if measured and not scored else "Deghosting"
        write_text(new / "report.html", page.page(f"{title}: {heading['run']}", heading, sections))
    return text


def _tables(
    chosen: Sequence[tuple[Statistics, int]], measured: Sequence[Statistics], compared: Rows
) -> dict[str, Rows]:
    """Everything beside the curves, by file name."""
    return {
        "segments": [row for made, index in chosen for row in detail_tables.segments(made, index)],
        "particles": [row for made, index in chosen for row in particle_table.rows(made, index)],
        "error_distances": [
            row for made, index in chosen for row in detail_tables.error_distances(made, index)
        ],
        "missing_charge": [
            row for made, index in chosen for row in detail_tables.missing_charge(made, index)
        ],
        "charge": [row for made in measured for row in detail_tables.charge_summary(made)],
        "charge_events": [row for made in measured for row in detail_tables.charge_events(made)],
        "charge_particles": [row for made in measured for row in detail_tables.charge_particles(made)],
        "compared_events": compared,
    }


def _sections(
    folder: Path,
    chosen: Sequence[tuple[Statistics, int]],
    measured: Sequence[Statistics],
    threshold: float | None,
    trained: Mapping[str, training.Rows],
    tables: Mapping[str, Rows],
    compared: Rows,
    with_pictures: bool,
) -> list[tuple[str, str]]:
    sections = []
    results = [
        asdict(row)
        for made, index in chosen
        if made.sample.has_truth
        for row in network(made.sample, index) + baselines(made.sample)
    ]
    kinds = [row for made, index in chosen for row in particle_table.by_kind(made, index)]
    shown = {
        "Purity and efficiency": page.table(results, most=40),
        "Particles": page.table(kinds),
        "Charge": page.table(tables["charge"]),
    }
    pictures = _pictures(chosen, measured, threshold, trained, compared) if with_pictures else {}
    order = (
        "Purity and efficiency",
        "Charge",
        "Other reconstructions",
        "Particles",
        "Errors",
        "Segments",
        "Training",
    )
    for name in order:
        content = write_pictures(folder, pictures.get(name, {})) + shown.get(name, "")
        if content:
            sections.append((name, content))
    return sections


def _pictures(
    chosen: Sequence[tuple[Statistics, int]],
    measured: Sequence[Statistics],
    threshold: float | None,
    trained: Mapping[str, training.Rows],
    compared: Rows,
) -> dict[str, dict[str, Picture]]:
    """Pictures by section and file name."""
    from hpcreco.experiments.protodune.analysis import compare, figures, figures_charge, figures_detail

    made: dict[str, dict[str, Picture | None]] = {
        "Training": {**training.pictures(trained)} if trained else {}
    }
    if chosen:
        made["Purity and efficiency"] = {**figures.pictures([m.sample for m, _ in chosen], threshold)}
    made["Particles"] = {"particles_kind": figures_detail.draw_kinds(chosen)}
    for view in particle_table.VIEWS:
        made["Particles"][f"particles_{view}"] = figures_detail.draw_against(chosen, view)
    made["Errors"], made["Segments"], made["Charge"] = {}, {}, {}
    for sample, index in chosen:
        name = sample.sample.name
        made["Errors"][f"distances_{name}"] = figures_detail.draw_distances(sample, index)
        made["Errors"][f"missing_{name}"] = figures_detail.draw_missing(sample, index)
        made["Segments"][f"segments_{name}"] = figures_detail.draw_segments(sample, index)
    for sample in measured:
        name = sample.sample.name
        made["Charge"][f"residuals_{name}"] = figures_charge.draw_residuals(sample)
        made["Charge"][f"sums_{name}"] = figures_charge.draw_sums(sample)
        made["Charge"][f"dqdx_{name}"] = figures_charge.draw_dqdx(sample)
    if compared:
        made["Other reconstructions"] = {"compared": compare.draw_against([m for m, _ in chosen], compared)}
    return {
        section: {name: p for name, p in group.items() if p is not None} for section, group in made.items()
    }


def _text(
    heading: Mapping[str, object],
    scored: Sequence[Statistics],
    threshold: float | None,
    tables: Mapping[str, Rows],
) -> str:
    text = text_report(
        heading, [made.sample for made in scored], threshold
    )  # without scores, the heading alone
    lines = [
        f"{row['sample']}, {row['n']} {row['of']}: charge bias {row['bias']:+.3f}, median {row['median']:+.3f}, "
        f"RMS {row['rms']:.3f}, half width of 68 % {row['half_width_68']:.3f}; sum ratio {row['sum_ratio']:.3f}"
        for row in tables["charge"]
    ]
    if tables["compared_events"]:
        from hpcreco.experiments.protodune.analysis.compare import summary

        for row in summary(tables["compared_events"]):
            said = ", ".join(
                f"{n} {row[n]:.3f}" for n in ("purity", "efficiency", "charge_ratio") if n in row
            )
            lines.append(f"{row['sample']}, {row['method']}, {row['events']} events: {said}")
    for made in scored:
        if "to_ghost" in made.detail.arrays:
            index = working_index(made.sample, threshold)
            near = detail_tables.near_shares(made, index)
            lines.append(
                f"{made.sample.name}: errors nearer than 2 cells to the boundary: "
                f"{near['false_negatives']:.0%} of the missed, {near['false_positives']:.0%} of the kept ghosts"
            )
    return text + ("\n" + "\n".join(lines) + "\n" if lines else "")
