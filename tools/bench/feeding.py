#!/usr/bin/env python
"""How busy the ranks are kept: samplers on 8 to 512 simulated ranks, and the wait for data of real ones.

    python tools/bench/feeding.py --out bench

Samplers share out 100,000 events whose sizes are drawn from those of results/event_sizes.csv (smoothed bootstrap,
Silverman's bandwidth on log sizes). Cost is voxels; the efficiency of steps is the sum of the ranks' mean costs over
the sum of the largest, the share of the time that ranks work. Real ranks train the full network on simulated cosmics,
in shards as `tile` writes them by default: coordinates and labels compressed.

Writes feeding.csv (one row per sample, ranks, mean events per rank and step, and sampler), feeding.png (efficiency
against ranks) and feeding.figures.csv. Samplers:

    DistributedSampler   torch's, so many events per rank and step
    event_batch          hpcreco: the same number of events per step, dealt to ranks by size
    cost_budget          hpcreco: events up to so many voxels per step, dealt to ranks by size
    rank_budget          hpcreco: the same, packed into equal parts first

`within_step` is the intraclass correlation of log sizes within steps: 0 for steps of random events, 1 where all events
of a step are alike. The sizes were measured with

    hpcreco simulate protodune --preset small --files 60 --seed 6 --out parsed/cosmic
    hpcreco simulate protodune --preset small --types Electron Mu Pion --files 10 --events 10 --seed 6 --out parsed/one
    hpcreco tile -i parsed/cosmic -o xy/cosmic -t 1 --y-type depo      # parsed/one likewise
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cosmics
import numpy as np
from figures import Figure, write

from hpcreco.data import balance
from hpcreco.data.plan import StepPlanner
from hpcreco.train import summary

SIZES = Path(__file__).parent / "results" / "event_sizes.csv"
EVENTS = 100_000
RANKS = (8, 32, 64, 256, 512)
PER_RANK = (1, 2, 4, 8)  # mean events per rank and step
CLAIMED = (8, 64, 512)
STEPS = 60  # of an epoch at most; steps come in random order
ROUNDS = 3
SAMPLERS = ("DistributedSampler", "event_batch", "cost_budget", "rank_budget")


class Case(NamedTuple):
    """What is shared out how."""

    sample: str
    ranks: int
    per_rank: int
    sampler: str


class Found(NamedTuple):
    """Of one epoch."""

    efficiency: float
    within_step: float


class OneFile:
    """All events in one file, for the planner."""

    first = np.array([0, EVENTS])


# ---------------------------------------------------------------------------------------------- simulated ranks


def sizes(sample: str, seed: int) -> np.ndarray:
    """(EVENTS,) voxels of events of a sample: `cosmics`, or `mixed` with as many single particles."""
    with SIZES.open(newline="") as stream:
        rows = [
            (row["sample"], float(row["voxels"]))
            for row in csv.DictReader(stream)
            if sample == "mixed" or row["sample"] == "BeamCosmic"
        ]
    rng = np.random.default_rng(seed)
    kinds, measured = np.array([kind for kind, _ in rows]), np.log([voxels for _, voxels in rows])
    widths = np.zeros(len(rows))
    for kind in set(kinds):
        own = measured[kinds == kind]
        widths[kinds == kind] = 0.9 * own.std() * len(own) ** -0.2
    chosen = rng.integers(len(rows), size=EVENTS)
    return np.round(np.exp(measured[chosen] + rng.normal(0, widths[chosen])))


def shared_out(case: Case, costs: np.ndarray, epoch: int) -> Found:
    """Steps of an epoch of the case."""
    per_step = case.ranks * case.per_rank
    if case.sampler == "DistributedSampler":
        steps = list(torch_steps(case, epoch))
        loads = np.array([[costs[events].sum() for events in ranks] for ranks in steps])
        found = balance.Balance(loads, np.zeros_like(loads, int), np.ones(len(steps), int), last=loads)
        return Found(found.overall, within([np.log(costs[np.concatenate(ranks)]) for ranks in steps]))
    part = case.per_rank * float(costs.mean())
    mode, size = ("events", per_step) if case.sampler == "event_batch" else ("cost", case.ranks * part)
    rank_size = part if case.sampler == "rank_budget" else None
    plan = StepPlanner(OneFile(), costs, mode, size, seed=1, rank_size=rank_size)
    count = min(STEPS, plan.steps_in(epoch, case.ranks))
    found = balance.simulate(plan, case.ranks, epoch, count)
    chosen = [step for _, step in zip(range(count), plan.stream(epoch), strict=False)]
    return Found(found.overall, within([np.log(step.costs) for step in chosen]))


def torch_steps(case: Case, epoch: int) -> Iterator[list[np.ndarray]]:
    """Events of each rank in each step, as torch's sampler and batches of `per_rank` make them."""
    from torch.utils.data import DistributedSampler

    orders = []
    for rank in range(case.ranks):
        sampler = DistributedSampler(range(EVENTS), case.ranks, rank, shuffle=True, seed=1)
        sampler.set_epoch(epoch)
        orders.append(np.fromiter(sampler, np.int64))
    for start in range(0, min(len(orders[0]), STEPS * case.per_rank), case.per_rank):
        yield [order[start : start + case.per_rank] for order in orders]


def within(steps: list[np.ndarray]) -> float:
    """Intraclass correlation of groups of different sizes (Fisher's, from the analysis of variance)."""
    counts = np.array([len(values) for values in steps], float)
    if len(steps) < 2 or counts.sum() <= len(steps):
        return float("nan")
    pooled = np.concatenate(steps)
    means = np.array([values.mean() for values in steps])
    between = (counts * (means - pooled.mean()) ** 2).sum() / (len(steps) - 1)
    inside = sum(((values - values.mean()) ** 2).sum() for values in steps) / (counts.sum() - len(steps))
    typical = (counts.sum() - (counts**2).sum() / counts.sum()) / (len(steps) - 1)
    return float((between - inside) / (between + (typical - 1) * inside))


def simulated() -> dict[Case, list[Found]]:
    """Every case, in as many epochs as there are rounds for what is claimed, in one otherwise."""
    results: dict[Case, list[Found]] = {}
    for sample, many in (("cosmics", RANKS), ("mixed", CLAIMED)):
        costs = sizes(sample, seed=1)
        for ranks in many:
            for per_rank in PER_RANK:
                for sampler in SAMPLERS:
                    case = Case(sample, ranks, per_rank, sampler)
                    claimed = sample == "cosmics" and ranks in CLAIMED
                    epochs = ROUNDS if claimed and sampler in (SAMPLERS[0], SAMPLERS[-1]) else 1
                    results[case] = [shared_out(case, costs, epoch) for epoch in range(epochs)]
            print(f"{sample}, {ranks} ranks", file=sys.stderr, flush=True)
    return results


def sampler_figures(results: dict[Case, list[Found]]) -> list[Figure]:
    """The worst of all numbers of events per rank, and how much longer torch's sampler takes at 4 events per rank."""
    claims = []
    for ranks in CLAIMED:
        ours = [results[Case("cosmics", ranks, per_rank, "rank_budget")] for per_rank in PER_RANK]
        worst = [min(found.efficiency for found in epoch) for epoch in zip(*ours, strict=True)]
        name = f"voxel-budget sampler, {ranks} ranks, worst of 1 to 8 events per rank: efficiency"
        claims.append(Figure(name, worst, bar=0.95))
    for ranks in CLAIMED:
        pair = [
            results[Case("cosmics", ranks, 4, sampler)] for sampler in ("rank_budget", "DistributedSampler")
        ]
        ratios = [own.efficiency / other.efficiency for own, other in zip(*pair, strict=True)]
        name = (
            f"epoch on {ranks} ranks, 4 events per rank and step: DistributedSampler / voxel-budget sampler"
        )
        claims.append(Figure(name, ratios))
    return claims


# ---------------------------------------------------------------------------------------------- real ranks


def waits(folder: Path, ranks: int, epochs: int) -> list[float]:
    """Share of the time that rank 0 waits for data, per epoch after the first; one event per rank and step."""
    changes = cosmics.overrides(folder, data__event_batch=ranks, train__n_epochs=epochs)
    shutil.rmtree(folder / "out", ignore_errors=True)
    start = [] if ranks == 1 else [Path(sys.executable).parent / "mpiexec", "-n", str(ranks)]
    command = [*start, sys.executable, "-m", "hpcreco", "train", "protodune/ghost3d_cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    sets = [f"--set={text}" for text in changes]
    subprocess.run([*command, *sets], check=True, env=environment, stdout=subprocess.DEVNULL)
    return [
        row["data_time"] / row["train_time"] for row in summary.read(folder / "out" / "summaries.csv")[1:]
    ]


def wait_figures(events: int, epochs: int) -> list[Figure]:
    """Of 1 and 2 ranks with one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        cosmics.prepare(Path(folder), events)
        return [
            Figure(f"wait for data / step, {name}", waits(Path(folder), ranks, epochs), "lower", 0.02)
            for ranks, name in ((1, "1 rank"), (2, "2 ranks"))
        ]


# ---------------------------------------------------------------------------------------------- results


def write_table(results: dict[Case, list[Found]], path: Path) -> None:
    """Medians over epochs."""
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow([*Case._fields, "epochs", *Found._fields])
        for case, found in results.items():
            medians = np.median(np.array(found), axis=0)
            table.writerow([*case, len(found), *(f"{value:.4f}" for value in medians)])


def plot(results: dict[Case, list[Found]], path: Path) -> None:
    """Efficiency against ranks, a panel per number of events per rank, a line per sampler."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    styles = {
        "DistributedSampler": {"color": "tab:red", "marker": "s"},
        "event_batch": {"color": "tab:gray", "linestyle": ":", "marker": "."},
        "cost_budget": {"color": "tab:gray", "linestyle": "--", "marker": "."},
        "rank_budget": {"color": "tab:blue", "marker": "o"},
    }
    figure, panels = plt.subplots(1, len(PER_RANK), figsize=(13, 3.6), sharey=True, layout="constrained")
    for panel, per_rank in zip(panels, PER_RANK, strict=True):
        for sampler, style in styles.items():
            values = [
                np.median([f.efficiency for f in results[Case("cosmics", r, per_rank, sampler)]])
                for r in RANKS
            ]
            panel.plot(RANKS, values, label=sampler, **style)
            mixed = [
                np.median([f.efficiency for f in results[Case("mixed", r, per_rank, sampler)]])
                for r in CLAIMED
            ]
            panel.plot(CLAIMED, mixed, "x", color=style["color"])
        panel.axhline(0.95, color="black", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_xticks(RANKS, [str(r) for r in RANKS])
        panel.set_title(f"{per_rank} event{'s'[: per_rank > 1]} per rank and step", fontsize=10)
        panel.set_xlabel("ranks")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean / largest cost of the ranks")
    panels[0].set_ylim(0, 1.02)
    panels[-1].legend(fontsize=8, title="cosmics (x: half single particles)", title_fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Simulate, train, write the table, the plot and the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), help="folder of the results (default %(default)s)"
    )
    parser.add_argument("--events", type=int, default=6, help="events of real ranks (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of real ranks (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = simulated()
    write_table(results, args.out / "feeding.csv")
    plot(results, args.out / "feeding.png")
    claims = sampler_figures(results) + wait_figures(args.events, args.epochs)
    write(claims, args.out / "feeding.figures.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
