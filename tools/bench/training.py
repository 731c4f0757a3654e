#!/usr/bin/env python
"""What the trainer costs beside the network: against a bare loop, on 2 ranks, for checkpoints, and at the start.

    python tools/bench/training.py --out bench

Simulates and tiles a few cosmic events in a temporary folder; the full network of ghost3d_cpu then trains on them,
peers taking turns step by step within one process (training_peers.py), each rank with one thread:

- the trainer and a bare loop (forward, loss, backward, clipping, update), both on batches in memory: CPU time
- rank 0 alone, both ranks, and both without overlap, on the same steps of two events: wall time
- a checkpoint written at once, and one written beside the training: time for which training stands still
- `hpcreco --help` and `import torch`: wall time

Writes training.csv (seconds of every peer in every round), training.png and training.figures.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cosmics
import numpy as np
from figures import Figure, summary, write

PEERS = Path(__file__).parent / "training_peers.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

Seconds = dict[str, list[float]]


def main() -> int:
    """Prepare data, measure, write the tables and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), help="folder of the results (default %(default)s)"
    )
    parser.add_argument(
        "--events", type=int, default=6, help="cosmic events to train on (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every peer (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cosmics.prepare(folder, args.events)
        seconds = peers([], "loop", folder, args.rounds + 2)
        mpiexec = Path(sys.executable).parent / "mpiexec"
        seconds |= peers([str(mpiexec), "-n", "2"], "ranks", folder, args.rounds + 1)
    seconds |= start_up(args.rounds + 1)
    save(seconds, args.out / "training.csv")
    claims = figures(seconds)
    write(claims, args.out / "training.figures.csv")
    plot(claims, args.out / "training.png")
    return 0


def peers(launcher: list[str], what: str, folder: Path, rounds: int) -> Seconds:
    """Seconds of the peers in training_peers.py, by name."""
    command = [*launcher, sys.executable, str(PEERS), what, str(folder), "--rounds", str(rounds)]
    done = subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    found: Seconds = json.loads(done.stdout.splitlines()[-1])
    return found


def start_up(turns: int) -> Seconds:
    """Seconds of `hpcreco --help` and of `import torch`, after a first time."""

    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    pairs = [(seconds("-m", "hpcreco", "--help"), seconds("-c", "import torch")) for _ in range(turns)]
    return {"--help": [a for a, _ in pairs[1:]], "import torch": [b for _, b in pairs[1:]]}


def figures(seconds: Seconds) -> list[Figure]:
    """What the benchmark claims."""

    def ratio(above: str, below: str) -> list[float]:
        return [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]

    return [
        Figure("trainer / bare loop", ratio("trainer", "bare loop"), "lower", 1.02),
        Figure("2 ranks / 1 rank: rate", ratio("one rank", "overlapped")),
        Figure("overlapped / flat all-reduce: step time, 2 ranks", ratio("overlapped", "flat"), "lower"),
        Figure(
            "checkpoint on the critical path: asynchronous / synchronous",
            ratio("asynchronous", "synchronous"),
            "lower",
        ),
        Figure("--help / import torch", ratio("--help", "import torch"), "lower", 0.10),
    ]


def save(seconds: Seconds, path: Path) -> None:
    """One row per peer and round."""
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["peer", "round", "seconds"])
        for name, values in seconds.items():
            table.writerows([name, number, f"{value:.5g}"] for number, value in enumerate(values))


def plot(claims: list[Figure], path: Path) -> None:
    """Every round as a dot, the bar as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(claims), figsize=(3 * len(claims), 3), layout="constrained")
    for panel, claim in zip(panels, claims, strict=True):
        panel.plot(np.linspace(-1, 1, len(claim.values)), claim.values, "o", alpha=0.6)
        panel.axhline(summary(claim).median, color="k", linewidth=1, label="median")
        if claim.bar is not None:
            panel.axhline(claim.bar, color="tab:red", linestyle="--", label="bar")
        panel.legend(fontsize=7)
        panel.set_title(claim.name.replace(": ", ":\n"), fontsize=8)
        panel.set_xticks([])
        panel.set_xlim(-2, 2)
        panel.set_ylim(0, 1.15 * max(*claim.values, claim.bar or 0))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
