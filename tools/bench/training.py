#!/usr/bin/env python
"""What the trainer costs beside the network: against a bare loop, the wait for data, 2 ranks against 1, start-up.

    python tools/bench/training.py --out bench

Simulates and tiles a few cosmic events in a temporary folder, then lets the peers take turns in one run. Writes
training.csv (figure, median, quartiles, bar) and training.png. Bars: trainer overhead <= 3 %, wait for data < 2 % of
the step, `hpcreco --help` <= 10 % of `import torch`.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from hpcreco import config, experiment, shards
from hpcreco.data.batch import Ref, collate
from hpcreco.train import summary
from hpcreco.train.run import train
from hpcreco.train.start import Request
from hpcreco.world import World


def main() -> int:
    """Prepare data, measure, write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), help="folder of training.csv and training.png"
    )
    parser.add_argument(
        "--events", type=int, default=6, help="cosmic events to train on (default %(default)s)"
    )
    parser.add_argument("--turns", type=int, default=4, help="turns of every peer (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, args.events)
        figures = overhead(folder, args.turns) | scaling(folder, args.turns) | start_up(args.turns + 3)
    write(figures, args.out / "training.csv")
    plot(figures, args.out / "training.png")
    return 0


def prepare(folder: Path, events: int) -> None:
    """Simulate and tile `events` cosmic events, one a file."""
    hpcreco = [sys.executable, "-m", "hpcreco"]
    sample = [
        "--preset",
        "small",
        "--files",
        str(events),
        "--events",
        "1",
        "--seed",
        "7",
        "--out",
        str(folder / "parsed"),
    ]
    subprocess.run([*hpcreco, "simulate", "protodune", *sample], check=True, stdout=subprocess.DEVNULL)
    tile = ["tile", "-i", str(folder / "parsed"), "-o", str(folder / "xy"), "-t", "1", "--y-type", "depo"]
    subprocess.run([*hpcreco, *tile], check=True, stdout=subprocess.DEVNULL)


def run_config(folder: Path) -> list[str]:
    """Overrides that turn ghost3d_cpu into a run of one event a step without validation; the network stays."""
    return [
        f"output_dir={folder / 'out'}",
        f"data.data_path={folder / 'xy'}",
        "data.train_i=[1, 9999]",
        "data.inference_i=null",
        "data.tpcs=[1]",
        "data.event_batch=1",
        "schedule=null",
        "train.n_epochs=2",
    ]


def build(folder: Path) -> tuple[config.Run, experiment.Experiment]:
    """The run of `run_config`."""
    os.environ.setdefault("DATA", str(folder))
    raw = config.load("protodune/ghost3d_cpu", run_config(folder))
    found = experiment.recognise(raw)
    return found.load("normalise")(raw, False), found


def overhead(folder: Path, turns: int) -> dict[str, list[float]]:
    """Seconds per step of the trainer over those of a bare loop on batches in memory, and the share spent waiting."""
    run, found = build(folder)
    ratios, waits = [], []
    for _ in range(turns):
        bare = bare_loop(run, found)
        shutil.rmtree(run.output_dir, ignore_errors=True)
        train(run, found, World(), Request())
        row = summary.read(run.output_dir / "summaries.csv")[-1]  # the first epoch warms up
        ratios.append(row["train_time"] / row["steps"] / bare)
        waits.append(row["data_time"] / row["train_time"])
    return {"trainer / bare loop": ratios, "wait for data / step": waits}


def bare_loop(run: config.Run, found: experiment.Experiment) -> float:
    """Mean seconds of forward, loss, backward and update over all events, after one epoch to warm up."""
    task = found.task_of(run)
    read = task.read(run, True)
    batches = []
    for number, path in enumerate(found.load("files")(run, "train")):
        with shards.Shard(path) as shard:
            event = read(shard, 0, np.random.default_rng(0))
        batches.append(collate([event], [Ref(number, 0)], [1.0]))
    network = task.model(run).train()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(2):
        began = time.perf_counter()
        for batch in batches:
            optimizer.zero_grad()
            score = network.logits(batch["voxels/coords"], batch["voxels/features"])
            torch.nn.functional.binary_cross_entropy_with_logits(score, batch["voxels/labels"]).backward()
            optimizer.step()
    return (time.perf_counter() - began) / len(batches)


def scaling(folder: Path, turns: int) -> dict[str, list[float]]:
    """Cost per second of two ranks over that of one, each rank with one thread; 2 is perfect."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    ratios = []
    for _ in range(turns):
        rates = []
        for ranks in (1, 2):
            command = [
                mpiexec,
                "-n",
                str(ranks),
                sys.executable,
                "-m",
                "hpcreco",
                "train",
                "protodune/ghost3d_cpu",
            ]
            sets = [f"--set={text}" for text in [*run_config(folder), "data.event_batch=2"]]
            environment = os.environ | {"DATA": str(folder), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
            shutil.rmtree(folder / "out", ignore_errors=True)
            subprocess.run([*command, *sets], check=True, env=environment, stdout=subprocess.DEVNULL)
            rates.append(summary.read(folder / "out" / "summaries.csv")[-1]["train_rate"])
        ratios.append(rates[1] / rates[0])
    return {"2 ranks / 1 rank": ratios}


def start_up(turns: int) -> dict[str, list[float]]:
    """Seconds of `hpcreco --help` over those of `import torch`."""

    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    pairs = [(seconds("-m", "hpcreco", "--help"), seconds("-c", "import torch")) for _ in range(turns)]
    return {"--help / import torch": [a / b for a, b in pairs[1:]]}


BARS = {"trainer / bare loop": 1.03, "wait for data / step": 0.02, "--help / import torch": 0.10}


def write(figures: dict[str, list[float]], path: Path) -> None:
    """One row per figure."""
    with open(path, "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["figure", "median", "lower_quartile", "upper_quartile", "turns", "bar"])
        for name, values in figures.items():
            low, middle, high = np.percentile(values, [25, 50, 75])
            row = [name, f"{middle:.4f}", f"{low:.4f}", f"{high:.4f}", len(values), BARS.get(name, "")]
            table.writerow(row)
            print("  ".join(map(str, row)))


def plot(figures: dict[str, list[float]], path: Path) -> None:
    """Every turn as a dot, the bar as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(figures), figsize=(3 * len(figures), 3), layout="constrained")
    for panel, (name, values) in zip(panels, figures.items(), strict=True):
        panel.plot(np.zeros(len(values)), values, "o", alpha=0.6)
        panel.plot([0], [np.median(values)], "k_", markersize=30)
        if name in BARS:
            panel.axhline(BARS[name], color="tab:red", linestyle="--", label="bar")
            panel.legend()
        panel.set_title(name, fontsize=9)
        panel.set_xticks([])
        panel.set_ylim(0, None)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
