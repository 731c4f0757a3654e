#!/usr/bin/env python
"""The sparse UResNet on a GPU: our Triton kernels, our torch operations, MinkowskiEngine, spconv, and two ceilings.

    python tools/bench/sparse_gpu.py --out bench             # the event of sparse.py; every peer in each round
    python tools/bench/sparse_gpu.py --device cpu --voxels 2000 --peers torch gemm copy    # tries the script itself

Writes sparse_gpu.csv (one row per peer, precision and task) and sparse_gpu.figures.csv (ratios, round by round). Where
there is no GPU it says so and writes nothing. Kernel maps are built anew in every run; block sizes and other
choices of each engine are made before the first round. Peers:

triton, torch   the native backend by each of its paths
minkowski       MinkowskiEngine under the same network, if it is installed for GPUs; it knows no bfloat16
spconv          the same layers of spconv's own modules, with torch's batch norm; under autocast it takes float16
gemm            the multiplications of all convolutions as dense products of the same widths, nothing else
copy            the features that enter and leave every convolution, moved once, nothing else
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import figures
import numpy as np
import sparse as cpu_bench
from figures import Figure

TASKS = ("training step", "inference")
PRECISIONS = ("float32", "tf32", "bfloat16")
ENGINES = ("minkowski", "spconv")
PEERS = ("triton", "torch", *ENGINES, "gemm", "copy")
BAR = 1.5  # training step in bfloat16, against the best of ENGINES in any precision

Work = Callable[[str], object]
"""Runs a task of TASKS once."""
Times = dict[tuple[str, str, str], list[float]]
"""Seconds of every round by peer, precision and task."""


class NoPeerError(Exception):
    """A peer that cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What all peers share. device: of torch. coords (N, 4) int32, features (N, 3) lie on it."""

    device: str
    width: int
    levels: int
    cloud: Path
    coords: object
    features: object


def main() -> int:
    """Simulate, measure, write."""
    args = arguments().parse_args()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("sparse_gpu: nothing measured: torch sees no GPU here")
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        setting = prepare(args, Path(folder) / "cloud.npz")
        works = dict(made(args.peers, args.precisions, setting))
        times = measure(works, args.repeats, setting.device)
    write(
        times,
        args.out / "sparse_gpu.csv",
        {"voxels": len(setting.coords), "device": device_name(args.device)},
    )
    figures.write(ratios(times), args.out / "sparse_gpu.figures.csv")
    return 0


def arguments() -> argparse.ArgumentParser:
    """Flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the tables")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default %(default)s)")
    parser.add_argument(
        "--width", type=int, default=16, help="channels of the finest level (default %(default)s)"
    )
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--voxels", type=int, help="the first so many cells of the event only")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    return parser


def prepare(args: argparse.Namespace, cloud: Path) -> Setting:
    """The event of sparse.py, on the device."""
    coords, values = cpu_bench.simulated(args.seed)
    np.savez(cloud, coords=coords[: args.voxels], features=values[: args.voxels])
    rows, features = cpu_bench.cloud(cloud)
    return Setting(
        args.device, args.width, args.levels, cloud, rows.to(args.device), features.to(args.device)
    )


def device_name(device: str) -> str:
    """The GPU's name."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


# ------------------------------------------------------------------------------------------------- peers


def made(peers: list[str], precisions: list[str], setting: Setting) -> Iterator[tuple[tuple[str, str], Work]]:
    """Every peer in every precision, after a first run of each task; says which are left out and why."""
    for peer in peers:
        for precision in precisions:
            try:
                work = guarded(MAKERS[peer](setting), precision, setting.device)
                for task in TASKS:
                    work(task)
            except (NoPeerError, ImportError, RuntimeError, ValueError) as error:
                print(f"{peer}, {precision}: left out: {str(error).splitlines()[0]}", file=sys.stderr)
            else:
                yield (peer, precision), work


def guarded(work: Work, precision: str, device: str) -> Work:
    """The work under a precision; without gradients unless the task needs them."""
    import torch

    def run(task: str) -> None:
        with (
            products(precision),
            torch.set_grad_enabled(task == "training step"),
            torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            work(task)

    return run


@contextmanager
def products(precision: str) -> Iterator[None]:
    """TF32 products of torch, cuDNN and spconv where they are asked for."""
    import torch

    constants = getattr(sys.modules.get("spconv"), "constants", None)
    switches = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    switches += [(constants, "SPCONV_ALLOW_TF32")] if constants else []
    before = [getattr(owner, name, False) for owner, name in switches]
    for owner, name in switches:
        setattr(owner, name, precision == "tf32")
    try:
        yield
    finally:
        for (owner, name), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def network(model, setting: Setting) -> Work:
    """Runs a network that gives rows of features."""
    model.to(setting.device)

    def work(task: str) -> None:
        model.train(task != "inference")
        rows = model(setting.coords, setting.features)
        if task == "training step":
            rows.float().square().mean().backward()
            model.zero_grad()

    return work


def ours(setting: Setting, path: str = "", backend: str = "native") -> Work:
    """UResNet of the package by one path of the native backend, or by another backend."""
    import torch

    from hpcreco.nn.uresnet import UResNet
    from hpcreco.sparse import paths

    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = UResNet(setting.width, setting.levels, backend=backend)

        def forward(self, coords, features):
            return self.net(coords, features).rows

    work = network(Rows(), setting)

    def run(task: str) -> None:
        before = os.environ.pop(paths.VARIABLE, None)
        if path:
            os.environ[paths.VARIABLE] = path
        try:
            work(task)
        finally:
            os.environ.pop(paths.VARIABLE, None)
            if before is not None:
                os.environ[paths.VARIABLE] = before

    return run


def spconv(setting: Setting) -> Work:
    """The same network of spconv's modules."""
    from spconv_uresnet import SpconvUResNet

    return network(SpconvUResNet(setting.width, setting.levels), setting)


def gemm(setting: Setting) -> Work:
    """Dense products of as many rows as each convolution has pairs of neighbours; three times in a training step."""
    import torch

    sizes = cpu_bench.convolutions(setting)
    most: dict[tuple[int, int], int] = {}
    for rows, *widths in sizes:
        most[tuple(widths)] = max(rows, most.get(tuple(widths), 0))
    factors = {
        pair: [torch.randn(*shape, device=setting.device) for shape in ((rows, pair[0]), pair)]
        for pair, rows in most.items()
    }
    narrow = {pair: [factor.bfloat16() for factor in both] for pair, both in factors.items()}

    def work(task: str) -> None:
        chosen = narrow if torch.is_autocast_enabled(setting.device) else factors
        with torch.no_grad():
            for rows, *widths in sizes:
                x, weight = chosen[tuple(widths)]
                for _ in range(3 if task == "training step" else 1):
                    x[:rows] @ weight

    return work


def copy(setting: Setting) -> Work:
    """Moves the features that enter and leave each convolution; three times in a training step."""
    import torch
    from torch import nn

    from hpcreco import sparse
    from hpcreco.nn.uresnet import UResNet

    numbers: list[int] = []

    def note(module: nn.Module, inputs: tuple, output: sparse.SparseTensor) -> None:
        numbers.append(
            (inputs[0].features.numel() + output.features.numel()) // 2
        )  # each is read and written

    model = UResNet(setting.width, setting.levels)
    for part in model.modules():
        if isinstance(part, sparse.SubmanifoldConv | sparse.DownConv | sparse.UpConv):
            part.register_forward_hook(note)
    with torch.no_grad():
        model(*cpu_bench.cloud(setting.cloud))
    source = {
        t: torch.zeros(max(numbers), dtype=t, device=setting.device) for t in (torch.float32, torch.bfloat16)
    }
    goal = {dtype: torch.empty_like(tensor) for dtype, tensor in source.items()}

    def work(task: str) -> None:
        dtype = torch.bfloat16 if torch.is_autocast_enabled(setting.device) else torch.float32
        for number in numbers:
            for _ in range(3 if task == "training step" else 1):
                goal[dtype][:number].copy_(source[dtype][:number])

    return work


MAKERS: dict[str, Callable[[Setting], Work]] = {
    "triton": lambda setting: ours(setting, "triton"),
    "torch": lambda setting: ours(setting, "torch"),
    "minkowski": lambda setting: ours(setting, backend="minkowski"),
    "spconv": spconv,
    "gemm": gemm,
    "copy": copy,
}

# ------------------------------------------------------------------------------------------------ figures


def measure(works: dict[tuple[str, str], Work], repeats: int, device: str) -> Times:
    """In every round all peers do all tasks in all precisions, one after the other, each waited for."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times: Times = {}
    for _ in range(repeats):
        for task in TASKS:
            for (peer, precision), work in works.items():
                wait()
                start = time.perf_counter()
                work(task)
                wait()
                times.setdefault((peer, precision, task), []).append(time.perf_counter() - start)
    return times


def ratios(times: Times) -> Iterator[Figure]:
    """What is claimed: other / ours, both in the same round; engines in the precision that suits each best."""
    for task in TASKS:
        for precision in PRECISIONS:
            mine = times.get(("triton", precision, task))
            if mine is None:
                continue
            name = f"UResNet {task} on a GPU, {precision}"
            best = best_of(times, task, precision)
            if best is not None:
                bar = BAR if (task, precision) == ("training step", "bfloat16") else None
                yield Figure(
                    f"{name}: best of MinkowskiEngine and spconv / native", over(times[best], mine), bar=bar
                )
            for other, label in (("torch", "torch operations"), ("gemm", "GEMM"), ("copy", "copy")):
                if (other, precision, task) in times:
                    yield Figure(f"{name}: {label} / native", over(times[other, precision, task], mine))


def best_of(times: Times, task: str, precision: str) -> tuple[str, str, str] | None:
    """The fastest engine; a narrower precision of ours is compared with all that engines offer up to there."""
    allowed = PRECISIONS[: PRECISIONS.index(precision) + 1]
    rivals = [key for key in times if key[0] in ENGINES and key[1] in allowed and key[2] == task]
    return min(rivals, key=lambda key: statistics.median(times[key]), default=None)


def over(theirs: list[float], mine: list[float]) -> list[float]:
    """Ratios, round by round."""
    return [a / b for a, b in zip(theirs, mine, strict=True)]


def write(times: Times, path: Path, facts: dict[str, object]) -> None:
    """Medians and quartiles of seconds as CSV, also on the screen."""
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["peer", "precision", "task", "seconds", "quartile 1", "quartile 3", "rounds", *facts])
        for (peer, precision, task), seconds in times.items():
            low, median, high = np.percentile(seconds, [25, 50, 75])
            numbers = [f"{value:.6f}" for value in (median, low, high)]
            table.writerow([peer, precision, task, *numbers, len(seconds), *facts.values()])
    sys.stdout.write(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
