"""A plan as text, CSV and picture."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcreco.config import Run
from hpcreco.planning.advice import Nodes
from hpcreco.planning.measurement import Measurement
from hpcreco.planning.plan import Plan, Row
from hpcreco.planning.prediction import Prediction

HEADINGS = (
    ("steps/epoch", "step", "efficiency", "lost: balance", "fixed", "network", "upkeep")
    + ("epoch", "run", "node hours", "memory/rank")
)  # fmt: skip
#: what the time of ranks is lost to, as `Prediction` names it
LOSSES = ("balance", "fixed", "network", "upkeep")


def introduction(plan: Plan, files: int) -> dict[str, str]:
    """What there is to do, by heading."""
    work = plan.first.work
    planner, run, costs, budget = work.planner, work.run, work.planner.costs, work.budget
    unit = {"files": "file(s) a rank", "events": "event(s)", "cost": "of cost"}[planner.mode]
    return {
        "data": f"{len(costs):,} events in {files:,} files, cost {costs.min():,.0f} to {costs.max():,.0f}, "
        f"mean {costs.mean():,.0f}; {len(work.validation):,} events validated",
        "steps": f"{planner.size:,.0f} {unit}, {planner.steps_in(0, 1):,} an epoch on one rank; "
        + (f"micro-batches of cost {budget:,.0f}" if budget else "one micro-batch each"),
        "run": _ends(run, plan),
    }


def _ends(run: Run, plan: Plan) -> str:
    if run.iterations is not None:
        text = f"{run.iterations:,} steps"
    elif run.epochs is not None:
        text = f"{run.epochs} epochs"
    elif plan.predict(1).total.run is None:
        text = "ends by itself: the times are those of one epoch"
    else:
        text = "until its last stage is over"
    count = len(plan.stages)
    return text if count == 1 else f"{text}, in {count} stages"


def measured(stages: Sequence[Measurement]) -> dict[str, str]:
    """Measurements in words, by heading; where there are several stages, a line each."""
    found = stages[0]
    said = {"measured": f"{found.machine}, {found.device}, {found.threads} thread(s)"}
    for one in stages:
        name = f"{one.stage}: " if len(stages) > 1 else ""
        both, memory = one.forward_backward, one.memory
        narrow = f", {one.packing:.2g} s to lay them there" if one.packing >= 1e-4 else ""
        said |= {
            f"{name}network": f"{one.parameters:,} parameters train, {sum(one.gradients) / 1e6:.3g} MB of gradients in "
            f"{len(one.gradients)} bucket(s){narrow}",
            f"{name}step": f"{both.constant:.3g} s + {both.slope * 1e6:.3g} us per unit of cost (off by "
            f"{100 * both.deviation:.0f} %), update {one.update:.2g} s; "
            f"costs {one.points[0][0]:,.0f} to {one.largest:,.0f}",
            f"{name}memory": f"{memory.constant / 1e6:.0f} MB + {memory.slope / 1e3:.3g} kB per unit of cost (off by "
            f"{100 * memory.deviation:.0f} %)",
        }
    return said | {
        "besides": f"start {found.start:.1f} s, checkpoint {max(one.save for one in stages):.2g} s"
    }


def listed(said: dict[str, str]) -> str:
    """Headings and what stands behind them, a line each."""
    width = max(10, *map(len, said))
    return "\n".join(f"{heading:{width}s} {text}" for heading, text in said.items())


def table(rows: Sequence[Row], nodes: Nodes) -> str:
    """The predictions: a line for each number of ranks, and below it one for each stage where there are several."""
    several = any(len(row.stages) > 1 for row in rows)
    cells = [["nodes", "ranks", *(["stage"] if several else []), *HEADINGS]]
    for row in rows:
        for number, line in enumerate(lines(row)):
            where = [str(nodes.count(line.ranks)), str(line.ranks)] if number == 0 else ["", ""]
            cells.append([*where, *([line.stage] if several else []), *_cells(line, nodes)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells)


def lines(row: Row) -> tuple[Prediction, ...]:
    """The whole run, then its stages where there are several."""
    return (row.total, *row.stages) if len(row.stages) > 1 else (row.total,)


def _cells(row: Prediction, nodes: Nodes) -> list[str]:
    hours = "" if row.run is None else f"{nodes.count(row.ranks) * row.run / 3600:.3g}"
    shares = [f"{round(getattr(row, name), 2) + 0.0:.2f}" for name in ("efficiency", *LOSSES)]  # no -0.00
    return [
        f"{row.steps_per_epoch}",
        duration(row.step),
        *shares,
        duration(row.epoch),
        "" if row.run is None else duration(row.run),
        hours,
        f"{row.memory / 1e9:.2f} GB{'*' if row.extrapolated else ''}",
    ]


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def write_csv(rows: Sequence[Row], nodes: Nodes, notes: Iterable[str], path: Path) -> None:
    """All numbers in SI units; what they assume stands in front as comments."""
    from hpcreco import shards

    with shards.atomic(path) as temporary, open(temporary, "w", newline="") as stream:
        stream.writelines(f"# {note}\n" for note in notes)
        values: list[dict[str, Any]] = [
            {"nodes": nodes.count(line.ranks), "efficiency": line.efficiency, **asdict(line)}
            for row in rows
            for line in lines(row)
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
