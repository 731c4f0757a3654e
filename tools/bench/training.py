#!/usr/bin/env python
"""What the trainer costs beside the network: against a bare loop, on 2 ranks, for checkpoints, and at the start.

    python tools/bench/training.py --out bench

Simulates and tiles a few cosmic events in a temporary folder; the full network of ghost3d_cpu then trains on them,
peers taking turns step by step within one run (training_peers.py, training_ranks.py), each rank with one thread:

- the trainer and a bare loop (forward, loss, backward, clipping, update), both on batches in memory: CPU time
- rank 0 alone, both ranks, and both without overlap, on the same steps of two events: wall time
- both ranks with `parallel.compression` fp16 and bf16 (with Horovod where it is built, and with torch.distributed over
  gloo): bytes that a rank hands over, wall time of steps, and of the sums of gradients alone
- a checkpoint written at once, and one written beside the training: time for which training stands still
- `hpcreco --help` and `import torch`: wall time

Writes training.csv (seconds of every peer in every round, or bytes where it says so), training.png and
training.figures.csv.
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

from hpcreco.parallel import horovod_works

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

#: backends to compress gradients with, and how
BACKENDS = {"horovod": ("fp16",), "ddp": ("fp16", "bf16")}

#: panels side by side
COLUMNS = 5

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
        seconds = peers(["training_peers.py", folder], args.rounds + 2)
        seconds |= peers(["training_ranks.py", "sharing", folder], args.rounds + 1, ranks=2)
        for backend in BACKENDS if horovod_works() else ("ddp",):
            words = ["training_ranks.py", "compression", folder, "--backend", backend]
            seconds |= peers(words, max(3, args.rounds - 2), ranks=2)
    seconds |= start_up(args.rounds + 1)
    save(seconds, args.out / "training.csv")
    claims = figures(seconds)
    write(claims, args.out / "training.figures.csv")
    plot(claims, args.out / "training.png")
    return 0


def peers(words: list[str | Path], rounds: int, ranks: int = 1) -> Seconds:
    """Seconds of the peers in a script of this folder, by name."""
    script, *more = map(str, words)
    launcher = [] if ranks == 1 else [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)]
    command = [*launcher, sys.executable, str(HERE / script), *more, "--rounds", str(rounds)]
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
        *[
            Figure(
                f"gradients in {kind} / float32, {backend}, 2 ranks: {what}",
                ratio(f"{backend}, {kind}: {what}", f"{backend}, none: {what}"),
                "lower",
            )
            for backend, kinds in BACKENDS.items()
            for kind in kinds
            for what in ("bytes", "steps", "sums alone")
            if f"{backend}, {kind}: {what}" in seconds
        ],
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

    rows = -(-len(claims) // COLUMNS)
    figure, panels = plt.subplots(rows, COLUMNS, figsize=(2.6 * COLUMNS, 2.8 * rows), layout="constrained")
    for panel in panels.flat[len(claims) :]:
        panel.axis("off")
    for panel, claim in zip(panels.flat, claims, strict=False):
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
