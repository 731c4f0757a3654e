#!/usr/bin/env python
"""Predicted efficiency of training on up to 512 ranks, and how well such predictions meet real ranks.

    python tools/bench/scaling.py --out bench

`hpcreco plan --measure` times steps of the full deghosting network (ghost3d_cpu) on simulated cosmic events. 100,000
events whose sizes are drawn from those of results/event_sizes.csv (see feeding.py) are shared out over the ranks, and
the model of hpcreco.planning adds what the network costs. The efficiency is that of training steps: cost per second on
R ranks over R times that on one rank; validation, checkpoints and start-up are not in it. Cases:

    rank_budget     every rank takes the cost of 4 mean events a step, packed into equal parts
    one_file        every rank takes one file of one event, as the original program does
    same_step       a step of 512 mean events' cost, whatever the ranks; what is learned is then the same

each on two networks, whose numbers are assumptions: `cluster` (0.1 ms an operation, 10 us a message, 2 GB/s a rank) and
`ethernet` (0.5 ms, 50 us, 0.1 GB/s), with and without gradients that travel while backward computes.

Real ranks: the same network on six cosmic events, 1 and 2 ranks of one thread; the deviation of the predicted from the
real time of a step. On two cores that share their memory's bus two ranks are slower than two machines would be, which
is why the prediction for 2 ranks is measured on 2 ranks that compute at once.

Writes scaling.csv (with the assumptions as comments), scaling.png and scaling.figures.csv.
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
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cosmics
import feeding
import numpy as np
from figures import Figure, write

from hpcreco import config, experiment
from hpcreco.data.plan import StepPlanner
from hpcreco.planning import measurement
from hpcreco.planning.measurement import Measurement
from hpcreco.planning.network import ASSUMED, Network
from hpcreco.planning.prediction import Prediction, Predictor, Work
from hpcreco.train import summary

RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CLAIMED = (8, 64, 512)
PER_RANK = 4
STEP = 512  # mean events of a step of `same_step`
ROUNDS = 3
NETWORKS = {"cluster": ASSUMED, "ethernet": Network(5e-5, 1e8, 5e-4)}
CASES = ("rank_budget", "one_file", "same_step")


class Row(NamedTuple):
    """A prediction and what it is of."""

    case: str
    network: str
    overlap: bool
    ranks: int
    efficiency: float
    prediction: Prediction


class OneEventFiles:
    """Every event in a file of its own, for the planner."""

    first = np.arange(feeding.EVENTS + 1)


def main() -> int:
    """Measure, predict, compare with real ranks, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of each measurement (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="turns of real ranks (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("DATA", name)
        cosmics.prepare(folder, 6)
        measured = measure(folder, 1, args.seconds)
        deviations = {ranks: list(compare(folder, ranks, args)) for ranks in (1, 2)}
        run = config_of(folder)
    rows = [list(predicted(run, measured, seed)) for seed in range(1, ROUNDS + 1)]
    save(rows[0], measured, args.out / "scaling.csv")
    plot(rows[0], args.out / "scaling.png")
    write([*figures(rows), *reality(deviations)], args.out / "scaling.figures.csv")
    return 0


# ---------------------------------------------------------------------------------------------- measured


def overrides(folder: Path) -> list[str]:
    """ghost3d_cpu on the few events of `folder`, without validation; the network stays."""
    values = cosmics.overrides(folder, data__event_batch=2, train__n_epochs=2)
    return [f"--set={value}" for value in values]


def config_of(folder: Path) -> config.Run:
    """The run of `overrides`."""
    raw = config.load("protodune/ghost3d_cpu", [text.removeprefix("--set=") for text in overrides(folder)])
    return experiment.recognise(raw).load("normalise")(raw, False)  # type: ignore[no-any-return]


def hpcreco(ranks: int, *words: str) -> None:
    """Run hpcreco on `ranks` ranks of one thread."""
    launcher = [] if ranks == 1 else [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [*launcher, sys.executable, "-m", "hpcreco", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def measure(folder: Path, ranks: int, seconds: float) -> Measurement:
    """What `hpcreco plan --measure` finds on `ranks` ranks that compute at once."""
    path = folder / f"measured{ranks}.json"
    words = ["--measure", "-o", str(path), f"--seconds={seconds}"]
    hpcreco(ranks, "plan", "protodune/ghost3d_cpu", *overrides(folder), *words)
    (stage,) = measurement.read(path)
    return stage


def compare(folder: Path, ranks: int, args: argparse.Namespace) -> Iterator[float]:
    """Deviation of the predicted from the real seconds of a step, per round."""
    for _ in range(args.rounds):
        measure(folder, ranks, args.seconds)
        shutil.rmtree(folder / "out", ignore_errors=True)
        words = [f"--measured={folder / f'measured{ranks}.json'}", "--ranks", str(ranks)]
        table = folder / "plan.csv"
        hpcreco(1, "plan", "protodune/ghost3d_cpu", *overrides(folder), *words, f"--csv={table}")
        with table.open(newline="") as stream:
            expected = float(next(csv.DictReader(line for line in stream if line[0] != "#"))["step"])
        hpcreco(ranks, "train", "protodune/ghost3d_cpu", *overrides(folder))
        last = summary.read(folder / "out" / "summaries.csv")[-1]  # the first epoch warms up
        real = last["train_time"] / last["steps"]
        print(f"{ranks} rank(s): a step takes {real:.3f} s, predicted {expected:.3f} s", file=sys.stderr)
        yield abs(expected / real - 1)


# ---------------------------------------------------------------------------------------------- predicted


def predicted(run: config.Run, measured: Measurement, seed: int) -> Iterator[Row]:
    """Every case on every network, with event sizes of `seed`."""
    costs = feeding.sizes("cosmics", seed)
    for name, network in NETWORKS.items():
        for overlap in (True, False):
            for case in CASES:
                alone = predict(run, replace(measured, network=network), case, 1, costs, overlap)
                for ranks in RANKS:
                    row = predict(run, replace(measured, network=network), case, ranks, costs, overlap)
                    yield Row(case, name, overlap, ranks, row.busy / alone.busy, row)


def predict(
    run: config.Run, measured: Measurement, case: str, ranks: int, costs: np.ndarray, overlap: bool
) -> Prediction:
    """The prediction of one case; `busy`, a share of its steps, compares with that of other steps."""
    mean, part = float(costs.mean()), None
    mode, size = "files", 1.0
    if case == "rank_budget":
        mode, part = "cost", PER_RANK * mean
        size = ranks * part
    elif case == "same_step":
        mode, size = "cost", STEP * mean
    planner = StepPlanner(OneEventFiles(), costs, mode, size, seed=1, rank_size=part)
    return Predictor(Work(run, planner, np.zeros(0)), measured, overlap=overlap).predict(ranks)


def figures(rounds: list[list[Row]]) -> list[Figure]:
    """What is claimed for 8, 64 and 512 ranks; a round is another draw of event sizes."""
    claims = []
    for case, name, bar in (
        ("rank_budget", f"{PER_RANK} events' cost a rank in equal packs", 0.9),
        ("one_file", "one file a rank", None),
    ):
        for ranks in CLAIMED:
            wanted = (case, "cluster", True, ranks)
            values = [next(row for row in rows if row[:4] == wanted) for rows in rounds]
            claim = f"predicted efficiency, {ranks} ranks, {name}"
            claims.append(Figure(claim, [row.efficiency for row in values], bar=bar))
    return claims


def reality(deviations: dict[int, list[float]]) -> list[Figure]:
    """How far predictions were from real ranks."""
    return [
        Figure(f"predicted against real time of a step, {ranks} rank(s): deviation", values, "lower")
        for ranks, values in deviations.items()
    ]


def save(rows: list[Row], measured: Measurement, path: Path) -> None:
    """One row per case, network and number of ranks; what it assumes in front."""
    both = measured.forward_backward
    lines = "\n".join(
        f"network {name}, assumed: {n.overhead:g} s an operation, {n.latency:g} s a message, {n.bandwidth:g} bytes/s"
        for name, n in NETWORKS.items()
    )
    notes = f"""\
step of a rank: {both.constant:.4g} s + {both.slope:.4g} s a voxel + update {measured.update:.4g} s
measured on {measured.machine} ({measured.device}, {measured.threads} thread) with {measured.points[0][0]:.0f} to \
{measured.points[-1][0]:.0f} voxels, taken to be linear beyond
{sum(measured.gradients):.0f} bytes of gradients in {len(measured.gradients)} bucket(s); all-reduce by recursive \
halving and doubling (Thakur, Rabenseifner and Gropp 2005); two sums of a few numbers a step beside it
{lines}
nodes do not differ in speed, ranks of a node do not slow each other down, data are there in time""".splitlines()
    with path.open("w", newline="") as stream:
        stream.writelines(f"# {note}\n" for note in notes)
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            ["case", "network", "overlap", "ranks", "efficiency", "balance", "step_s", "events_per_step"]
        )
        for row in rows:
            p = row.prediction
            values = [f"{v:.4g}" for v in (row.efficiency, p.even, p.step, p.events_per_step)]
            table.writerow([row.case, row.network, int(row.overlap), row.ranks, *values])
    print("\n".join(notes))


def plot(rows: list[Row], path: Path) -> None:
    """Efficiency against ranks: a panel a network; dashed without overlap, dotted the balance alone."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(NETWORKS), figsize=(11, 4), sharey=True, layout="constrained")
    for panel, name in zip(panels, NETWORKS, strict=True):
        for number, case in enumerate(CASES):
            for overlap, style in ((True, "-o"), (False, "--")):
                shown = [r for r in rows if (r.case, r.network, r.overlap) == (case, name, overlap)]
                label = case if overlap else None
                values = [r.efficiency for r in shown]
                panel.plot(
                    [r.ranks for r in shown], values, style, color=f"C{number}", label=label, markersize=4
                )
                if overlap:
                    balance = [r.prediction.even for r in shown]
                    panel.plot([r.ranks for r in shown], balance, ":", color=f"C{number}", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set_xticks(RANKS, [str(r) for r in RANKS])
        panel.set(title=f"network: {name}", xlabel="ranks", ylim=(0, 1.05))
    panels[0].set_ylabel("predicted efficiency of steps")
    panels[0].legend(fontsize=8, title="dashed: no overlap; dotted: balance alone", title_fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
