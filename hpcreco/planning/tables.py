"""A plan as text, CSV and picture."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcreco.planning.advice import Nodes
from hpcreco.planning.measurement import Measurement
from hpcreco.planning.prediction import Prediction, Predictor, length

HEADINGS = (
    ("nodes", "ranks", "steps/epoch", "step", "efficiency", "lost: balance", "fixed", "network", "upkeep")
    + ("epoch", "run", "node hours", "memory/rank")
)  # fmt: skip
#: what the time of ranks is lost to, as `Prediction` names it
LOSSES = ("balance", "fixed", "network", "upkeep")


def introduction(predictor: Predictor, files: int) -> dict[str, str]:
    """What there is to do, by heading."""
    planner, run, gradients = predictor.work.planner, predictor.work.run, predictor.measured.gradients
    costs, budget = planner.costs, predictor.work.budget
    unit = {"files": "file(s) a rank", "events": "event(s)", "cost": "of cost"}[planner.mode]
    ends = f"{run.iterations:,} steps" if run.iterations is not None else f"{run.epochs} epochs"
    whole = length(run, planner.steps_in(0, 1), 0.0).whole
    return {
        "data": f"{len(costs):,} events in {files:,} files, cost {costs.min():,.0f} to {costs.max():,.0f}, "
        f"mean {costs.mean():,.0f}; {len(predictor.work.validation):,} events validated",
        "steps": f"{planner.size:,.0f} {unit}, {planner.steps_in(0, 1):,} an epoch on one rank; "
        + (f"micro-batches of cost {budget:,.0f}" if budget else "one micro-batch each"),
        "run": ends if whole else "ends by itself: the times are those of one epoch",
        "network": f"{predictor.measured.parameters:,} parameters, {sum(gradients) / 1e6:.3g} MB of gradients in "
        f"{len(gradients)} bucket(s)",
    }


def measured(found: Measurement) -> dict[str, str]:
    """A measurement in words, by heading."""
    both, memory = found.forward_backward, found.memory
    return {
        "measured": f"{found.machine}, {found.device}, {found.threads} thread(s), costs {found.points[0][0]:,.0f} to "
        f"{found.points[-1][0]:,.0f}",
        "a step": f"{both.constant:.3g} s + {both.slope * 1e6:.3g} us per unit of cost (off by "
        f"{100 * both.deviation:.0f} %), update {found.update:.2g} s",
        "memory": f"{memory.constant / 1e6:.0f} MB + {memory.slope / 1e3:.3g} kB per unit of cost",
        "besides": f"start {found.start:.1f} s, checkpoint {found.save:.2g} s",
    }


def listed(said: dict[str, str]) -> str:
    """Headings and what stands behind them, a line each."""
    return "\n".join(f"{heading:10s} {text}" for heading, text in said.items())


def table(rows: Iterable[Prediction], nodes: Nodes) -> str:
    """The predictions, a line each."""
    cells = [list(HEADINGS), *([str(cell) for cell in _cells(row, nodes)] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells)


def _cells(row: Prediction, nodes: Nodes) -> Sequence[object]:
    count = nodes.count(row.ranks)
    hours = "" if row.run is None else f"{count * row.run / 3600:.3g}"
    shares = [f"{round(getattr(row, name), 2) + 0.0:.2f}" for name in ("efficiency", *LOSSES)]  # no -0.00
    run = "" if row.run is None else duration(row.run)
    memory = f"{row.memory / 1e9:.2f} GB"
    return [
        count,
        row.ranks,
        row.steps_per_epoch,
        duration(row.step),
        *shares,
        duration(row.epoch),
        run,
        hours,
        memory,
    ]


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def write_csv(rows: Sequence[Prediction], nodes: Nodes, notes: Iterable[str], path: Path) -> None:
    """All numbers in SI units; what they assume stands in front as comments."""
    from hpcreco import shards

    with shards.atomic(path) as temporary, open(temporary, "w", newline="") as stream:
        stream.writelines(f"# {note}\n" for note in notes)
        values: list[dict[str, Any]] = [
            {"nodes": nodes.count(row.ranks), "efficiency": row.efficiency, **asdict(row)} for row in rows
        ]
        writer = csv.DictWriter(stream, list(values[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _short(v) for k, v in value.items()} for value in values)


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def plot(rows: Sequence[Prediction], title: str, least: float, path: Path) -> None:
    """Efficiency against ranks, and above it what the rest is lost to."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from hpcreco import shards

    ranks, efficiency = [row.ranks for row in rows], [row.efficiency for row in rows]
    lost = [[max(0.0, getattr(row, name)) for row in rows] for name in LOSSES]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.stackplot(ranks, efficiency, *lost, labels=["efficiency", *(f"lost: {name}" for name in LOSSES)],
                   colors=["C0", "C1", "C3", "C4", "0.7"], alpha=0.6)  # fmt: skip
    axes.plot(ranks, efficiency, "ko-", markersize=4)
    axes.axhline(least, color="k", linestyle="--", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(r) for r in ranks])
    axes.set(xlabel="ranks", ylabel="share of the ranks' time", ylim=(0, 1), title=title)
    axes.legend(fontsize=8, loc="lower left")
    with shards.atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, format=path.suffix.lstrip(".") or "png")
    plt.close(figure)
