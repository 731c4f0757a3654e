#!/usr/bin/env python
"""Sparse networks and layers beyond the one of sparse.py: native backend against MinkowskiEngine, regime by regime.

    python tools/bench/sparse_regimes.py --out bench                  # all; about four minutes
    python tools/bench/sparse_regimes.py tiny deep-5 --rounds 9       # some

Many small events at once, one tiny event, wide and deep networks on events of a 768^3 image, narrow ones, float64, one
thread, inference of one event, single layers. Each regime is a pair of processes that take turns; a turn is the
quickest of the calls that fit into a fifth of a second. Kernel maps are built anew in every call. Events are
simulated tracks, by a fixed seed: nearly straight, with delta rays, two or three voxels wide; single layers work on the
cosmic event of sparse.py. The bar is to be ahead, in time and memory. With a kernel of one cell and 64 channels both
engines do one dense product at the machine's rate: no bar there. Normalisations are ours in both peers.

Writes sparse_regimes.figures.csv (ratios), sparse_regimes.csv (a row per regime, peer and task: medians of seconds,
peak memory) and sparse_regimes.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import figures
import numpy as np
import sparse as one_event

import hpcreco  # noqa: F401 (before torch: it sets how OpenMP threads wait)

PEERS = ("native", "minkowski")
TRAINING, INFERENCE = "training", "inference"
TURN = 0.2
"""Seconds."""


@dataclass(frozen=True)
class Regime:
    """A case to measure.

    title: for tables. events: (number, fewest voxels, most) on a grid of `size` cells a side; None: the cosmic event.
    layer: (kind, kernel, stride) instead of a network. bar: of the ratios of time. memory: whether its peak memory
    is a figure too.
    """

    title: str
    events: tuple[int, int, int] | None
    width: int = 16
    levels: int = 4
    size: int = 768
    layer: tuple[str, int, int] | None = None
    bar: float | None = 1
    tasks: tuple[str, ...] = (TRAINING, INFERENCE)
    dtype: str = "float32"
    threads: int = 2
    memory: bool = False


SEVERAL = (8, 3000, 7000)
REGIMES = {
    "batch": Regime("64 events of 500 to 2000 voxels", (64, 500, 2000), size=256),
    "tiny": Regime("one event of 200 voxels", (1, 200, 200), size=64),
    "single": Regime("one event of 5000 voxels", (1, 5000, 5000)),
    "deep-5": Regime("m=32, L=5", SEVERAL, width=32, levels=5, memory=True),
    "deep-6": Regime("m=32, L=6", SEVERAL, width=32, levels=6, memory=True),
    "deep-6-16": Regime("m=16, L=6", SEVERAL, levels=6, memory=True),
    "narrow": Regime("m=8", SEVERAL, width=8),
    "float64": Regime("float64", SEVERAL, dtype="float64"),
    "one-thread": Regime("one thread", SEVERAL, threads=1),
    "kernel-1": Regime("kernel 1", None, layer=("same", 1, 1), tasks=(TRAINING,)),
    "kernel-1-64": Regime(
        "kernel 1, 64 channels", None, 64, layer=("same", 1, 1), tasks=(TRAINING,), bar=None
    ),
    "kernel-3": Regime("kernel 3", None, layer=("same", 3, 1), tasks=(TRAINING,)),
    "kernel-5": Regime("kernel 5", None, layer=("same", 5, 1), tasks=(TRAINING,)),
    "down": Regime("kernel 2, stride 2", None, layer=("down", 2, 2), tasks=(TRAINING,)),
    "up": Regime("transposed, kernel 2, stride 2", None, layer=("up", 2, 2), tasks=(TRAINING,)),
}

Costs = dict[tuple[str, str, str], list[dict[str, float]]]
"""Of a regime, peer and task, per round."""


def main() -> int:
    """Simulate, time, write the tables and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*REGIMES, []], metavar="NAME", help=", ".join(REGIMES))
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results")
    parser.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return serve(REGIMES[args.names[0]], args.worker, args.folder)
    args.out.mkdir(parents=True, exist_ok=True)
    costs: Costs = {}
    names = args.names or list(REGIMES)
    with tempfile.TemporaryDirectory() as folder:
        if any(REGIMES[name].events is None for name in names):
            coords, _ = one_event.simulated(2024)
            np.save(Path(folder) / "cosmic.npy", np.insert(coords, 0, 0, axis=1).astype(np.int32))
        for name in names:
            costs |= measure(name, Path(folder), args.rounds)
    rows = table(costs)
    figures.write_table(rows, args.out / "sparse_regimes.csv")
    found = ratios(costs)
    figures.write(found, args.out / "sparse_regimes.figures.csv")
    plot(found, args.out / "sparse_regimes.png")
    return 0


def measure(name: str, folder: Path, rounds: int) -> Costs:
    """In every round both peers do all tasks, one after the other. Kernels are compiled by a process before."""
    command = [sys.executable, __file__, name, "--folder", str(folder), "--worker"]
    subprocess.run(  # compilers take memory: they run in a process of their own
        [*command, "native"], input="\n".join(REGIMES[name].tasks), text=True, check=True, capture_output=True
    )
    environment = one_event.environment(REGIMES[name].threads)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = {
        peer: subprocess.Popen([*command, peer], **pipes, text=True, env=environment) for peer in PEERS
    }
    costs: Costs = {}
    try:
        for number in range(rounds + 1):  # the first warms up
            for peer, worker in workers.items():
                for task in REGIMES[name].tasks:
                    cost = one_event.ask([worker], task)
                    if number:
                        costs.setdefault((name, peer, task), []).append(cost)
    finally:
        for worker in workers.values():
            worker.terminate()
            worker.wait()
    print(name, file=sys.stderr)
    return costs


def serve(regime: Regime, backend: str, folder: Path) -> int:
    """The worker's loop: a task per line on stdin, its cost as JSON on stdout."""
    import torch

    torch.set_num_threads(regime.threads)
    torch.manual_seed(0)
    rows = tracks(*regime.events, regime.size) if regime.events else np.load(folder / "cosmic.npy")
    coords = torch.from_numpy(rows)
    make = layer if regime.layer else network
    work = make(regime, backend, coords, getattr(torch, regime.dtype))
    for line in sys.stdin:
        task, costs, begin = line.strip(), [], time.perf_counter()
        while not costs or time.perf_counter() - begin < TURN:
            costs.append(figures.timed(lambda task=task: work(task)))
        answer = dict(zip(("seconds", "cpu"), min(costs), strict=True))
        print(json.dumps(answer | {"peak MB": one_event.peak()}), flush=True)
    return 0


def network(regime: Regime, backend: str, coords, dtype) -> Callable[[str], None]:  # type: ignore[no-untyped-def]
    """A function that runs one task of a UResNet."""
    import torch

    from hpcreco.nn.uresnet import UResNet

    model = UResNet(regime.width, regime.levels, backend=backend).to(dtype)
    features = torch.randn(len(coords), 3, dtype=dtype)

    def work(task: str) -> None:
        if model.training != (task == TRAINING):
            model.train(task == TRAINING)
        with torch.set_grad_enabled(task == TRAINING):
            rows = model(coords, features).rows
        if task == TRAINING:
            rows.square().mean().backward()
            model.zero_grad()

    return work


def layer(regime: Regime, backend: str, coords, dtype) -> Callable[[str], None]:  # type: ignore[no-untyped-def]
    """A function that runs one layer forward and backward, its map included."""
    import torch

    from hpcreco import sparse

    assert regime.layer is not None
    kind, kernel, stride = regime.layer
    width = regime.width
    classes = {"same": sparse.SubmanifoldConv, "down": sparse.DownConv, "up": sparse.UpConv}
    sizes = (width, width, kernel) if kind == "same" else (width, 2 * width, kernel, stride)
    conv = classes[kind](*(sizes if kind != "up" else (2 * width, width, kernel, stride))).to(dtype)
    features = torch.randn(len(coords), width, dtype=dtype, requires_grad=True)

    def work(_: str) -> None:
        x, _ = sparse.voxelize(coords, features, backend=backend)
        if kind == "up":
            sites = x.sites.coarser(conv.kernel, conv.stride)
            below = sparse.SparseTensor(
                torch.ones(len(sites.coords), 2 * width, dtype=dtype).requires_grad_(), sites
            )
            y = conv(below, onto=x)
        else:
            y = conv(x)
        y.features.sum().backward()

    return work


def tracks(events: int, fewest: int, most: int, size: int) -> np.ndarray:
    """Rows (batch, x, y, z) int32 of events of tracks on a grid of `size` cells a side."""
    random = np.random.default_rng(6)
    rows = []
    for event in range(events):
        wanted = int(random.integers(fewest, most + 1))
        cells = np.zeros((0, 3), np.int64)
        while len(cells) < wanted:
            direction = random.normal(size=3)
            length = random.choice([size / 2, size / 20], p=[0.3, 0.7])  # a particle, or a delta ray
            steps = np.arange(0, length, 0.5)[:, None] * direction / np.linalg.norm(direction)
            walk = random.uniform(0, size, 3) + steps + np.cumsum(random.normal(0, 0.05, steps.shape), 0)
            wide = (walk[:, None] + random.normal(0, 0.7, (len(walk), 4, 3))).reshape(-1, 3)
            inside = wide[((wide >= 0) & (wide < size)).all(1)].astype(np.int64)
            cells = np.unique(np.concatenate([cells, inside]), axis=0)
        cells = (
            cells[np.sort(random.permutation(len(cells))[:wanted])]
            if len(cells) > 2 * wanted
            else cells[:wanted]
        )
        rows.append(np.insert(cells, 0, event, axis=1))
    return np.concatenate(rows).astype(np.int32)


def table(costs: Costs) -> list[dict[str, object]]:
    """One row per regime, peer and task."""
    rows = []
    for (name, peer, task), values in costs.items():
        regime = REGIMES[name]
        row: dict[str, object] = {"regime": name, "peer": peer, "task": task, "rounds": len(values)}
        row |= {"width": regime.width, "levels": regime.levels}
        row |= {"threads": regime.threads, "dtype": regime.dtype}
        row |= {key: f"{np.median([v[key] for v in values]):.5f}" for key in ("seconds", "cpu")}
        rows.append(row | {"peak MB": round(values[-1]["peak MB"])})
    return rows


def ratios(costs: Costs) -> list[figures.Figure]:
    """MinkowskiEngine's seconds over ours, round by round; memory the other way round."""
    found = []
    for name, regime in REGIMES.items():
        for task in regime.tasks:
            if (name, PEERS[0], task) in costs:
                ours, theirs = (np.array([v["seconds"] for v in costs[name, peer, task]]) for peer in PEERS)
                found.append(
                    figures.Figure(
                        f"{regime.title}, {task}: MinkowskiEngine / native", theirs / ours, bar=regime.bar
                    )
                )
        if regime.memory and (name, PEERS[0], TRAINING) in costs:
            ours, theirs = (np.array([v["peak MB"] for v in costs[name, peer, TRAINING]]) for peer in PEERS)
            label = f"{regime.title}, peak memory: native / MinkowskiEngine"
            found.append(figures.Figure(label, ours / theirs, better="lower", bar=1))
    return found


def plot(found: Sequence[figures.Figure], path: Path) -> None:
    """The ratios of time as bars, and their bar as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [figures.summary(f) for f in found if f.better == "higher"]
    figure, axis = plt.subplots(figsize=(7, 0.3 * len(rows) + 1))
    for number, row in enumerate(rows):
        error = [[row.median - row.quartile_1], [row.quartile_3 - row.median]]
        axis.barh(number, row.median, xerr=error, color="C3" if row.reached is False else "C0", capsize=2)
    axis.set_yticks(range(len(rows)), [row.figure.split(":")[0] for row in rows])
    axis.axvline(1, color="k", linewidth=1)
    axis.invert_yaxis()
    axis.set_xlabel("seconds of MinkowskiEngine / ours (median, quartiles)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
