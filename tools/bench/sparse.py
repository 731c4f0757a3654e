#!/usr/bin/env python
"""The sparse UResNet on one simulated cosmic event: native backend, MinkowskiEngine, and dense matrix products.

    python tools/bench/sparse.py --out bench             # 2 threads, 7 rounds, every peer in each round

Writes sparse.csv (one row per peer and task: medians and quartiles of wall seconds, CPU seconds, peak memory, and
how many times faster than MinkowskiEngine) and sparse.png. Kernel maps are built anew in every run. The peers are
processes of their own that take turns within one run, so that a busy machine slows all of them; ratios are taken
round by round. `torch.mm` does the multiplications of the network's convolutions as dense products of the
same widths, and nothing else: the floor of what this machine can do.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import hpcreco  # noqa: F401 (before torch: it sets how OpenMP threads wait)

TASKS = ["forward", "forward+backward", "inference"]
PEERS = ["native", "minkowski", "torch.mm"]
BLOCK = 4096  # rows of one dense product


def main() -> int:
    """Simulate, time, write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of sparse.csv and sparse.png")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--width", type=int, default=16, help="channels of the finest level (default %(default)s)"
    )
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--cloud", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return serve(args)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        args.cloud = Path(folder) / "cloud.npz"
        coords, features = simulated(args.seed)
        np.savez(args.cloud, coords=coords, features=features)
        workers = {name: start(name, args) for name in args.peers}
        try:
            rows = measure(workers, args.repeats)
        finally:
            for worker in workers.values():
                worker.terminate()
                worker.wait()
    for row in rows:
        row |= {"voxels": len(coords), "threads": args.threads, "width": args.width, "levels": args.levels}
    write(rows, args.out / "sparse.csv")
    plot(rows, args.out / "sparse.png")
    return 0


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


def start(name: str, args: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that runs one peer on request, warmed up."""
    flags = {"--cloud": args.cloud, "--threads": args.threads, "--width": args.width, "--levels": args.levels}
    command = [sys.executable, __file__, "--worker", name]
    command += [str(word) for flag in flags.items() for word in flag]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for task in TASKS:
        ask(worker, task)
    return worker


def ask(worker: subprocess.Popen[str], task: str) -> dict[str, float]:
    """Run a task in a worker: wall seconds, CPU seconds, peak memory so far (MB)."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(task + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"worker ended with {worker.wait()}")
    return json.loads(answer)


def serve(args: argparse.Namespace) -> int:
    """The worker's loop: a task per line on stdin, its cost as JSON on stdout."""
    import resource

    import torch

    torch.set_num_threads(args.threads)
    work = products(args) if args.worker == "torch.mm" else network(args, args.worker)
    for line in sys.stdin:
        wall, process = time.perf_counter(), time.process_time()
        work(line.strip())
        cost = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - process}
        cost["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(cost), flush=True)
    return 0


def network(args: argparse.Namespace, backend: str) -> Callable[[str], None]:
    """A function that runs one task of the UResNet."""
    import torch

    from hpcreco.nn.uresnet import UResNet

    torch.manual_seed(0)
    model = UResNet(args.width, args.levels, backend=backend)
    coords, features = cloud(args.cloud)

    def work(task: str) -> None:
        model.train(task != "inference")
        with torch.set_grad_enabled(task != "inference"):
            rows = model(coords, features).rows
        if task == "forward+backward":
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
    """A function that multiplies as many dense rows by matrices as the network's convolutions do."""
    import torch

    sizes = convolutions(args)
    inputs = {(i, o): (torch.randn(BLOCK, i), torch.randn(i, o)) for _, i, o in sizes}
    out = {pair: torch.empty(BLOCK, pair[1]) for pair in inputs}

    def work(task: str) -> None:
        for rows, c_in, c_out in sizes:
            rounds = -(-rows // BLOCK) * (3 if task == "forward+backward" else 1)
            for _ in range(rounds):
                torch.mm(*inputs[c_in, c_out], out=out[c_in, c_out])

    return work


def convolutions(args: argparse.Namespace) -> list[tuple[int, int, int]]:
    """(pairs of neighbours, channels in, channels out) of every convolution of the network on the saved event."""
    import torch
    from torch import nn

    from hpcreco import sparse
    from hpcreco.nn.uresnet import UResNet
    from hpcreco.sparse.maps import TiledMap, submanifold_map
    from hpcreco.sparse.tensor import pack

    sizes = []

    def note(module: nn.Module, inputs: tuple, output: sparse.SparseTensor) -> None:
        assert isinstance(module, (sparse.SubmanifoldConv, sparse.DownConv, sparse.UpConv))
        x = inputs[0]
        if isinstance(module, sparse.SubmanifoldConv):
            found = submanifold_map(pack(x.coords), module.kernel, "numba")
            assert isinstance(found, TiledMap)
            pairs = int((found.forth.starts[:, -1] - found.forth.starts[:, 0]).sum())
        else:
            pairs = max(len(x.features), len(output.features))
        sizes.append((pairs, module.weight.shape[1], module.weight.shape[2]))

    model = UResNet(args.width, args.levels)
    for part in model.modules():
        if isinstance(part, (sparse.SubmanifoldConv, sparse.DownConv, sparse.UpConv)):
            part.register_forward_hook(note)
    with torch.no_grad():
        model(*cloud(args.cloud))
    return sizes


def measure(workers: dict[str, subprocess.Popen[str]], repeats: int) -> list[dict[str, object]]:
    """One row per peer and task; in every round all peers do all tasks, one after the other."""
    costs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(repeats):
        for task in TASKS:
            for name, worker in workers.items():
                costs.setdefault((name, task), []).append(ask(worker, task))
        print(f"round {number + 1} of {repeats}", file=sys.stderr)
    rows = []
    for (name, task), values in costs.items():
        seconds = np.array([v["seconds"] for v in values])
        low, median, high = np.percentile(seconds, [25, 50, 75])
        row: dict[str, object] = {"peer": name, "task": task, "repeats": repeats}
        row |= {"seconds": f"{median:.4f}", "quartile 1": f"{low:.4f}", "quartile 3": f"{high:.4f}"}
        row |= {"cpu": f"{np.median([v['cpu'] for v in values]):.4f}"}
        row |= {"peak MB": round(values[-1]["peak MB"])}
        for other in ("minkowski", "torch.mm"):
            if (other, task) in costs:
                ratio = np.array([v["seconds"] for v in costs[other, task]]) / seconds
                row[f"x {other}"] = "{1:.2f} ({0:.2f}-{2:.2f})".format(*np.percentile(ratio, [25, 50, 75]))
        rows.append(row)
    return rows


def write(rows: list[dict[str, object]], path: Path) -> None:
    """The table, also on the screen."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(path.read_text())


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds with quartiles per task, one colour per peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.5))
    for number, row in enumerate(rows):
        middle, low, high = (float(str(row[k])) for k in ("seconds", "quartile 1", "quartile 3"))
        colour = f"C{PEERS.index(str(row['peer']))}"
        axis.barh(number, middle, xerr=[[middle - low], [high - middle]], color=colour, capsize=3)
    axis.set_yticks(range(len(rows)), [f"{row['task']}, {row['peer']}" for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel(f"seconds, {rows[0]['voxels']} voxels, {rows[0]['threads']} threads (median, quartiles)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
