"""The numbers of a report: CSV files for programs, a text for people."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hpcreco.experiments.protodune.analysis.curve import THRESHOLDS, area
from hpcreco.experiments.protodune.analysis.results import Result, baselines, network, working_index
from hpcreco.experiments.protodune.analysis.sample import Sample
from hpcreco.pages.files import write_csv


def write_tables(folder: Path, samples: Sequence[Sample], threshold: float | None) -> None:
    """counts.csv, events.csv, scores.csv, and with truth results.csv and curve.csv, into `folder`."""
    write_csv(folder / "counts.csv", COUNTS, (_counts(s, working_index(s, threshold)) for s in samples))
    write_csv(
        folder / "events.csv", EVENTS, (r for s in samples for r in _events(s, working_index(s, threshold)))
    )
    write_csv(folder / "scores.csv", SCORES, (r for s in samples for r in _scores(s)))
    with_truth = [s for s in samples if s.has_truth]
    if not with_truth:
        return
    rows = [r for s in with_truth for r in network(s, working_index(s, threshold)) + baselines(s)]
    header = [field.name for field in fields(Result)]
    write_csv(folder / "results.csv", header, (list(asdict(row).values()) for row in rows))
    write_csv(folder / "curve.csv", CURVE, (r for s in with_truth for r in _curve(s)))


COUNTS = ("sample", "events", "candidates", "kept", "threshold", "n_T", "n_TP_naive", "n_FP_naive",
          "ghost_per_true", "tiling_efficiency")  # fmt: skip
EVENTS = ("sample", "event", "candidates", "kept", "n_T", "n_TP_naive", "n_FP_naive", "auc_pe", "purity", "efficiency",
          "auc_pe_by_charge")  # fmt: skip
SCORES = ("sample", "above", "up_to", "candidates", "true", "ghost")
CURVE = ("sample", "kind", "threshold", "purity", "efficiency")


def _counts(sample: Sample, index: int) -> list[object]:
    counts = sample.counts()
    known = (counts.truth, counts.true, counts.ghost) if sample.has_truth else (None, None, None)
    kept, threshold = int(sample.kept(index).sum()), float(THRESHOLDS[index])
    ratios = (counts.ghost_per_true, counts.tiling_efficiency)
    return [sample.name, counts.events, counts.candidates, kept, threshold, *known, *ratios]


def _events(sample: Sample, index: int) -> Iterable[list[object]]:
    kept, auc = sample.kept(index), sample.event_auc()
    purity, efficiency = sample.event_curves()
    by_charge = area(*sample.event_curves(weighted=True))
    for k, key in enumerate(sample.keys):
        row: list[object] = [sample.name, key, int(sample.scores[k].sum()), int(kept[k])]
        if sample.has_truth:
            true = int(sample.true[k].sum())
            truth = true + sample.missed[k] if sample.missed_known else None
            row += [truth, true, int(sample.ghost[k].sum()), float(auc[k])]
            row += [float(purity[k, index]), float(efficiency[k, index]), float(by_charge[k])]
        yield row + [None] * (len(EVENTS) - len(row))


def _scores(sample: Sample) -> Iterable[list[object]]:
    """Bin 0, scores that pass no threshold, is written as the scores up to 0."""
    edges = [None, *THRESHOLDS.tolist(), None]
    everything = np.sum(sample.scores, axis=0)
    parts = [np.sum(h, axis=0) for h in (sample.true, sample.ghost)] if sample.has_truth else None
    for k, n in enumerate(everything):
        split = [int(part[k]) for part in parts] if parts else [None, None]
        yield [sample.name, edges[k], edges[k + 1], int(n), *split]


def _curve(sample: Sample) -> Iterable[list[object]]:
    kinds = {"mean": sample.mean(), "pooled": sample.pooled(), "weighted": sample.mean(weighted=True)}
    if sample.missed_known and not sample.comp_true:
        kinds["mean, all truth"] = sample.mean(comp_true=True)
        kinds["weighted, all truth"] = sample.mean(weighted=True, comp_true=True)
    for kind, curve in kinds.items():
        for row in zip(curve.thresholds, curve.purity, curve.efficiency, strict=True):
            yield [sample.name, kind, *map(float, row)]


def text_report(heading: Mapping[str, object], samples: Sequence[Sample], threshold: float | None) -> str:
    """The report as text: what was read, counts per event, results."""
    console = Console(file=io.StringIO(), width=118, highlight=False)
    for name, value in heading.items():
        console.print(f"{name:12s} {value}", soft_wrap=True, markup=False)
    if samples:
        console.print()
        console.print(_counts_table(samples, threshold))
    for sample in samples:
        if sample.has_truth:
            console.print(_results_table(sample, working_index(sample, threshold)))
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _counts_table(samples: Sequence[Sample], threshold: float | None) -> Table:
    table = Table(title="voxels per event", title_justify="left")
    table.add_column("sample", no_wrap=True)
    columns = ["events", "candidates", "score >", "kept"]
    if any(sample.has_truth for sample in samples):
        columns += ["true", "true cand.", "ghosts", "ghost:true", "tiling eff."]
    for name in columns:
        table.add_column(name, justify="right")
    for sample in samples:
        counts, index = sample.counts(), working_index(sample, threshold)
        n = max(counts.events, 1)
        row = [sample.name, str(counts.events), f"{counts.candidates / n:,.1f}"]
        row += [f"{THRESHOLDS[index]:.2f}", f"{sample.kept(index).sum() / n:,.1f}"]
        if sample.has_truth:
            truth = "unknown" if counts.truth is None else f"{counts.truth / n:,.1f}"
            row += [truth, f"{counts.true / n:,.1f}", f"{counts.ghost / n:,.1f}"]
            row += [_number(counts.ghost_per_true, 1), _number(counts.tiling_efficiency)]
        table.add_row(*row)
    return table


def _results_table(sample: Sample, index: int) -> Table:
    table = Table(title=f"{sample.name}: purity and efficiency", title_justify="left")
    table.add_column("method")
    for name in ("auc_pe", "break-even", "threshold", "purity", "efficiency", "accuracy", "balanced"):
        table.add_column(name, justify="right")
    sections = (network(sample, index), baselines(sample))
    for section in sections:
        for row in section:
            cut = "" if math.isnan(row.threshold) else f"{row.threshold:.3g}"
            table.add_row(
                row.method, _number(row.auc_pe), _number(row.break_even), cut, _number(row.purity),
                _number(row.efficiency), _number(row.accuracy), _number(row.balanced_accuracy),
            )  # fmt: skip
        table.add_section()
    return table


def _number(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
