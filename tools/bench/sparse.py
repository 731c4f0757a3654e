#!/usr/bin/env python
"""The sparse UResNet on one simulated cosmic event: native backend, MinkowskiEngine, and dense matrix products.

    python tools/bench/sparse.py --out bench             # 2 threads, 7 rounds, every peer in each round

Writes sparse.figures.csv (ratios with their bars), sparse.csv (one row per peer and task: medians and quartiles of wall
seconds, CPU seconds, GFLOP/s of the convolutions, peak memory) and sparse.png. Kernel maps are built anew in every
run. The peers are processes of their own that take turns within one run, so that a busy machine slows all of them;
ratios are taken round by round.

`torch.mm` does the multiplications of the network's convolutions as dense products of the same widths, and nothing
else: of rows and weights on the way forward, of gradients and transposed weights, and of transposed rows and gradients
on the way back. One process per thread does its part of them with one BLAS thread: BLAS itself shares products this
narrow out badly. Operands are multiplied again and again, in blocks of the number of rows that is quickest here, so
that they stay in cache. The ratio "native / GEMM rate" counts the multiplications of the convolutions only, but all of
the time of the step, with maps, normalisations and the rest. It can exceed 1 because products this narrow do not suit
BLAS: with 16 channels torch.mm runs at two thirds of its rate for large matrices, while our kernels, made for such
widths, run at nine tenths of it (measured, see hpcreco/sparse/kernels.py). The rate of large products (2048 x 2048) is
the second, higher ceiling.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import figures
import numpy as np

import hpcreco  # noqa: F401 (before torch: it sets how OpenMP threads wait)

FORWARD, TRAINING, INFERENCE, LARGE = "forward", "forward+backward", "inference", "large products"
TASKS = {
    "native": [FORWARD, TRAINING, INFERENCE],
    "minkowski": [FORWARD, TRAINING, INFERENCE],
    "torch.mm": [FORWARD, TRAINING, LARGE],
}
BLOCKS = (1024, 4096, 16384)
"""Rows of one dense product, of which the quickest is taken."""
LARGE_SIZE = 2048

Product = tuple[int, int, int]
"""Rows, columns of a row, columns of the result."""
Costs = dict[tuple[str, str], list[dict[str, float]]]
"""Of a peer and a task, per round."""


def main() -> int:
    """Simulate, time, write the tables and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--width", type=int, default=16, help="channels of the finest level (default %(default)s)"
    )
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--peers", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--worker", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--cloud", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return serve(args)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        args.cloud = Path(folder) / "cloud.npz"
        voxels, flop = prepare(args)
        workers = {name: start(name, args) for name in args.peers}
        try:
            costs = measure(workers, args.repeats)
        finally:
            for worker in (w for group in workers.values() for w in group):
                worker.terminate()
                worker.wait()
    rows = table(costs, flop)
    for row in rows:
        row |= {"voxels": voxels, "threads": args.threads, "width": args.width, "levels": args.levels}
    figures.write_table(rows, args.out / "sparse.csv")
    plot(rows, args.out / "sparse.png")
    figures.write(ratios(costs, flop), args.out / "sparse.figures.csv")
    return 0


def prepare(args: argparse.Namespace) -> tuple[int, dict[str, float]]:
    """Leave the event, and beside it the sizes of the products; number of voxels, FLOP of each task."""
    coords, features = simulated(args.seed)
    np.savez(args.cloud, coords=coords, features=features)
    network(args, "native")(TRAINING)  # so that compiled kernels are in numba's cache: compilers take memory
    sizes = convolutions(args)
    args.cloud.with_name("sizes.json").write_text(json.dumps(sizes))
    forward = float(sum(2 * rows * c_in * c_out for rows, c_in, c_out in sizes))
    # The first convolution's input needs no gradient.
    training = 3 * forward - 2 * sizes[0][0] * sizes[0][1] * sizes[0][2]
    large = 2.0 * LARGE_SIZE**3 * args.threads
    return len(coords), {FORWARD: forward, INFERENCE: forward, TRAINING: training, LARGE: large}


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, 3) and features (N, 3) of the tiled cells of one simulated cosmic event."""
    from hpcreco.experiments.protodune import geometry
    from hpcreco.experiments.protodune.simulation import chain
    from hpcreco.experiments.protodune.simulation.streams import EventKey
    from hpcreco.experiments.protodune.tiling.tiler import Tiler

    samples = chain.simulate(
        EventKey(seed, 1, 1, 0), "BeamCosmic", geometry.load(), 1, chain.Settings()
    ).samples
    tiles = Tiler(geometry.load().face(1), threads=1).tile(samples.tick, samples.channel, samples.value)
    return tiles.coords, tiles.features


def environment(threads: int) -> dict[str, str]:
    """A peer's: MinkowskiEngine shares out some of its work by this alone, whatever torch is told."""
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def start(name: str, args: argparse.Namespace) -> list[subprocess.Popen[str]]:
    """The processes that run one peer on request, warmed up."""
    flags = {
        "--cloud": args.cloud,
        "--threads": args.threads,
        "--width": args.width,
        "--levels": args.levels,
    }
    command = [sys.executable, __file__, "--worker", name]
    command += [str(word) for flag in flags.items() for word in flag]
    shared = environment(args.threads)
    group = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=shared)
        for _ in range(args.threads if name == "torch.mm" else 1)
    ]
    for task in TASKS[name]:
        ask(group, task)
    return group


def ask(group: Sequence[subprocess.Popen[str]], task: str) -> dict[str, float]:
    """Run a task in all processes of a peer at once: wall seconds of the slowest, CPU seconds, peak memory (MB)."""
    for worker in group:
        assert worker.stdin is not None
        worker.stdin.write(task + "\n")
        worker.stdin.flush()
    answers = []
    for worker in group:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            raise RuntimeError(f"worker ended with {worker.wait()}")
        answers.append(json.loads(line))
    return {
        "seconds": max(a["seconds"] for a in answers),
        "cpu": sum(a["cpu"] for a in answers),
        "peak MB": sum(a["peak MB"] for a in answers),
    }


def serve(args: argparse.Namespace) -> int:
    """The worker's loop: a task per line on stdin, its cost as JSON on stdout."""
    work = products(args) if args.worker == "torch.mm" else network(args, args.worker)
    for line in sys.stdin:
        wall, process = time.perf_counter(), time.process_time()
        work(line.strip())
        cost = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - process}
        cost["peak MB"] = peak()
        print(json.dumps(cost), flush=True)
    return 0


def peak() -> float:
    """The most memory this process has held, MB; what getrusage says starts at the parent's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def network(args: argparse.Namespace, backend: str) -> Callable[[str], None]:
    """A function that runs one task of the UResNet."""
    import torch

    from hpcreco.nn.uresnet import UResNet

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = UResNet(args.width, args.levels, backend=backend)
    coords, features = cloud(args.cloud)

    def work(task: str) -> None:
        model.train(task != INFERENCE)
        with torch.set_grad_enabled(task != INFERENCE):
            rows = model(coords, features).rows
        if task == TRAINING:
            rows.square().mean().backward()
            model.zero_grad()

    return work


def cloud(path: Path) -> tuple:
    """Coordinates (N, 4) int32 with batch 0, and features (N, 3) of the saved event."""
    import torch

    with np.load(path) as event:
        coords, features = event["coords"], event["features"].astype(np.float32)
    rows = np.concatenate([np.zeros((len(coords), 1)), coords], 1).astype(np.int32)
    return torch.from_numpy(rows), torch.from_numpy(features / features.std(0))


def products(args: argparse.Namespace) -> Callable[[str], None]:
    """A function that does one process's part of the dense products of a task."""
    import torch

    torch.set_num_threads(1)
    sizes = json.loads(args.cloud.with_name("sizes.json").read_text())
    share = [(-(-rows // args.threads), c_in, c_out) for rows, c_in, c_out in sizes]
    quickest: dict[tuple[str, int, int], Callable[[int], None]] = {}

    def run(kind: str, rows: int, c_in: int, c_out: int) -> None:
        if (kind, c_in, c_out) not in quickest:
            quickest[kind, c_in, c_out] = quickest_product(kind, c_in, c_out)
        quickest[kind, c_in, c_out](rows)

    large = [torch.randn(LARGE_SIZE, LARGE_SIZE) for _ in range(3)]

    def work(task: str) -> None:
        if task == LARGE:
            torch.mm(large[0], large[1], out=large[2])
            return
        for number, (rows, c_in, c_out) in enumerate(share):
            run("rows", rows, c_in, c_out)
            if task == TRAINING:
                run("weights", rows, c_in, c_out)
                if number:
                    run("rows", rows, c_out, c_in)

    return work


def quickest_product(kind: str, c_in: int, c_out: int) -> Callable[[int], None]:
    """A function that multiplies so many rows, in blocks of the size with which a trial was quickest.

    kind "rows": (rows, c_in) @ (c_in, c_out), "weights": (c_in, rows) @ (rows, c_out).
    """
    import torch

    def of(block: int) -> Callable[[int], None]:
        x, y = torch.randn(block, c_in), torch.randn(block, c_out)
        weight, matrix = torch.randn(c_in, c_out), torch.randn(c_in, c_out)

        def multiply(rows: int) -> None:
            for first in range(0, rows, block):
                n = min(block, rows - first)
                if kind == "rows":
                    torch.mm(x[:n], weight, out=y[:n])
                else:
                    torch.mm(x[:n].t(), y[:n], out=matrix)

        return multiply

    def seconds(multiply: Callable[[int], None]) -> float:
        trials = []
        for _ in range(5):
            begin = time.process_time()
            multiply(4 * max(BLOCKS))
            trials.append(time.process_time() - begin)
        return min(trials)

    return min((of(block) for block in BLOCKS), key=seconds)


def convolutions(args: argparse.Namespace) -> list[Product]:
    """(pairs of neighbours, channels in, channels out) of every convolution of the network on the saved event."""
    import torch
    from torch import nn

    from hpcreco import sparse
    from hpcreco.nn.uresnet import UResNet

    sizes = []

    def note(module: nn.Module, inputs: tuple, output: sparse.SparseTensor) -> None:
        assert isinstance(module, (sparse.SubmanifoldConv, sparse.DownConv, sparse.UpConv))
        if isinstance(module, sparse.SubmanifoldConv):
            pairs = module.route(inputs[0])[1].forth.count
        else:
            pairs = max(len(inputs[0].features), len(output.features))
        sizes.append((pairs, module.weight.shape[1], module.weight.shape[2]))

    model = UResNet(args.width, args.levels, backend="native")
    for part in model.modules():
        if isinstance(part, (sparse.SubmanifoldConv, sparse.DownConv, sparse.UpConv)):
            part.register_forward_hook(note)
    with torch.no_grad():
        model(*cloud(args.cloud))
    return sizes


def measure(workers: dict[str, list[subprocess.Popen[str]]], repeats: int) -> Costs:
    """In every round all peers do all tasks, one after the other."""
    costs: Costs = {}
    for number in range(repeats):
        for name, group in workers.items():
            for task in TASKS[name]:
                costs.setdefault((name, task), []).append(ask(group, task))
        print(f"round {number + 1} of {repeats}", file=sys.stderr)
    return costs


def table(costs: Costs, flop: dict[str, float]) -> list[dict[str, object]]:
    """One row per peer and task."""
    rows = []
    for (name, task), values in costs.items():
        low, median, high = np.percentile([v["seconds"] for v in values], [25, 50, 75])
        row: dict[str, object] = {"peer": name, "task": task, "repeats": len(values)}
        row |= {"seconds": f"{median:.4f}", "quartile 1": f"{low:.4f}", "quartile 3": f"{high:.4f}"}
        row |= {
            "cpu": f"{np.median([v['cpu'] for v in values]):.4f}",
            "GFLOP/s": f"{flop[task] / median / 1e9:.1f}",
        }
        rows.append(row | {"peak MB": round(values[-1]["peak MB"])})
    return rows


def ratios(costs: Costs, flop: dict[str, float]) -> list[figures.Figure]:
    """What was measured of the issue's figures, round by round."""
    found = []

    def of(name: str, task: str, key: str = "seconds") -> np.ndarray:
        return np.array([cost[key] for cost in costs[name, task]])

    if ("native", TRAINING) not in costs:
        return []
    if ("minkowski", TRAINING) in costs:
        for label, task, bar in (("training step", TRAINING, 3), ("inference", INFERENCE, 4)):
            ratio = of("minkowski", task) / of("native", task)
            found.append(figures.Figure(f"UResNet {label}: MinkowskiEngine / native", ratio, bar=bar))
    if ("torch.mm", TRAINING) in costs:
        rate = flop[TRAINING] / of("native", TRAINING)
        for label, task, bar in (("GEMM rate", TRAINING, 0.6), ("large GEMM rate", LARGE, None)):
            ratio = rate / (flop[task] / of("torch.mm", task))
            found.append(figures.Figure(f"UResNet training step: native / {label}", ratio, bar=bar))
    if ("minkowski", TRAINING) in costs:
        ratio = of("native", INFERENCE, "peak MB") / of("minkowski", INFERENCE, "peak MB")
        found.append(figures.Figure("peak memory: native / MinkowskiEngine", ratio, better="lower", bar=1))
    return found


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds with quartiles per task, one colour per peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.5))
    for number, row in enumerate(rows):
        middle, low, high = (float(str(row[k])) for k in ("seconds", "quartile 1", "quartile 3"))
        colour = f"C{list(TASKS).index(str(row['peer']))}"
        axis.barh(number, middle, xerr=[[middle - low], [high - middle]], color=colour, capsize=3)
    axis.set_yticks(range(len(rows)), [f"{row['task']}, {row['peer']}" for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel(f"seconds, {rows[0]['voxels']} voxels, {rows[0]['threads']} threads (median, quartiles)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
