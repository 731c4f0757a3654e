"""Compares sparse convolutions and sums over ranks on GPUs with what the CPU computes, and prints a table.

    python tools/engines/check_gpu.py                         one GPU
    srun -N 2 --ntasks-per-node=4 --gpus-per-node=4 --gpu-bind=none python tools/engines/check_gpu.py
    apptainer exec --nv --bind "$PWD" reco.sif python tools/engines/check_gpu.py
    python tools/engines/check_gpu.py --device cpu            tries the script itself where there is no GPU

A network of a submanifold, a strided and a transposed convolution with batch norm between them runs in every backend
that is installed, the native one by each of its paths (Triton kernels, torch operations); its result and all gradients
are compared with the native backend's on the CPU in float64. Every rank takes its own cloud of voxels and its own GPU.
Exit code 0: all agree; 1: something does not, or there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcreco import parallel, sparse, world
from hpcreco.nn.normalisation import BatchNorm
from hpcreco.parallel import Parallel
from hpcreco.parallel.node import NoGpuError
from hpcreco.sparse import paths

SIZE = 192  # cells along each axis
#: largest difference over the largest entry; products of bfloat16 keep 8 bits, those of TF32 keep 11
ALLOWED = {"float64": 1e-10, "float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Check:
    """One line of the table: the relative difference (None: nothing to compare), and seconds of the second run, for
    the first one compiles.
    """

    name: str
    difference: float | None
    allowed: float
    seconds: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """False also for NaN."""
        return self.difference is None or self.difference <= self.allowed


def cloud(voxels: int, seed: int) -> Tensor:
    """(N, 4) rows of batch, x, y, z on straight lines, some of them twice: about as sparse as tracks."""
    draw = torch.Generator().manual_seed(seed)
    lines = max(1, voxels // 200)
    ends = torch.rand(2, lines, 3, generator=draw) * (SIZE - 2)
    along = torch.rand(lines, -(-voxels // lines), 1, generator=draw)
    places = (ends[0, :, None] * (1 - along) + ends[1, :, None] * along + along.new_tensor(0.5)).int()
    batch = (torch.arange(lines, dtype=torch.int32) % 3).view(-1, 1, 1).expand(*places.shape[:2], 1)
    return torch.cat([batch, places], 2).flatten(0, 1)


def network(
    coords: Tensor, device: torch.device, dtype: torch.dtype, backend: str, amp: bool
) -> list[Tensor]:
    """Result in the order of the rows and gradients of input and weights, on the CPU in float64."""
    torch.manual_seed(1)
    rows = torch.randn(len(coords), 4, dtype=torch.float64)
    layers = [sparse.SubmanifoldConv(4, 16), sparse.DownConv(16, 32, 2, 2), sparse.UpConv(32, 16, 2, 2)]
    # No activation: a sum that is zero but for rounding would get a gradient on one device and none on the other.
    norm = BatchNorm(16, leakiness=1.0).to(device, dtype)
    probe = torch.randn(len(coords), 32, dtype=torch.float64)
    rows = rows.to(device, dtype).requires_grad_()
    conv, down, up = (layer.to(device, dtype) for layer in layers)
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        x, inverse = sparse.voxelize(coords.to(device), rows, (SIZE,) * 3, backend)
        fine = conv(x)
        coarse = down(fine.replace(norm(fine.features)))
        result = sparse.concatenate(fine, up(coarse, onto=fine)).features[inverse]
    gradients = torch.autograd.grad(
        (result * probe.to(result)).sum(),
        [rows, norm.weight, norm.bias, conv.weight, down.weight, up.weight],
    )
    return [tensor.detach().double().cpu() for tensor in (result, *gradients)]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of any tensor, over that tensor's largest entry; NaN if there is one."""
    worst = [(a - b).abs().max() / b.abs().max() for a, b in zip(ours, theirs, strict=True)]
    return float(torch.stack(worst).max())


def convolutions(device: torch.device, voxels: int, rank: int) -> Iterator[Check]:
    """Every backend, path and precision on ``device``, MinkowskiEngine also on the CPU, against the CPU in float64."""
    cpu, coords = torch.device("cpu"), cloud(voxels, seed=rank)
    with by_path("numba"):
        expected = network(coords, cpu, torch.float64, "native", amp=False)
    for backend, path in candidates(device):
        title = f"{backend}, {path}" if path else backend
        places = [cpu, device] if backend == "minkowski" and device != cpu else [device]
        try:
            with sparse.use(backend), by_path(path):
                if backend == "native":
                    paths.choose(device)
        except sparse.SparseError as error:
            yield Check(f"{title}: not compared", None, 0, 0, str(error))
            continue
        for place in places:
            for precision in precisions(place):
                with by_path(path), tf32(precision == "tf32"):
                    yield compared(title, coords, place, precision, backend, expected)


def candidates(device: torch.device) -> list[tuple[str, str]]:
    """Backends, the native one by each path that ``device`` may have."""
    native = ("triton", "torch") if device.type == "cuda" else ("numba", "torch")
    return [
        (backend, path) for backend in sparse.BACKENDS for path in (native if backend == "native" else ("",))
    ]


def precisions(device: torch.device) -> list[str]:
    """What numbers are multiplied; TF32 is a GPU's."""
    return ["float64", "float32", *(["tf32"] if device.type == "cuda" else []), "bfloat16"]


def compared(
    title: str, coords: Tensor, place: torch.device, precision: str, backend: str, expected: list[Tensor]
) -> Check:
    """One run that may compile, and one that is timed."""
    name, amp = f"{title} on {place.type}, {precision}", precision == "bfloat16"
    dtype = torch.float64 if precision == "float64" else torch.float32
    try:
        ours = network(coords, place, dtype, backend, amp)
        start = time.perf_counter()
        network(coords, place, dtype, backend, amp)  # its results come to the CPU: all is done then
        seconds = time.perf_counter() - start
        return Check(name, difference(ours, expected), ALLOWED[precision], seconds)
    except (RuntimeError, ValueError) as error:  # of CUDA, of an engine, of ours
        return Check(name, float("nan"), ALLOWED[precision], 0, str(error).splitlines()[0])


@contextmanager
def by_path(path: str) -> Iterator[None]:
    """The native backend by one path; empty: by its own choice."""
    before = os.environ.get(paths.VARIABLE)
    os.environ[paths.VARIABLE] = path
    try:
        yield
    finally:
        os.environ.pop(paths.VARIABLE)
        if before is not None:
            os.environ[paths.VARIABLE] = before


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 products of float32, or none."""
    switch = torch.backends.cuda.matmul
    before, switch.allow_tf32 = switch.allow_tf32, on
    try:
        yield
    finally:
        switch.allow_tf32 = before


def sums(ranks: Parallel, numbers: int) -> Iterator[Check]:
    """Sums over ranks of tensors on the device, with values known in advance, and a broadcast of the last rank's."""
    on_gpu = ranks.device.type == "cuda"
    detour = on_gpu and not getattr(ranks, "on_device", True)  # one rank of no engine has nothing to send
    note = "not by NCCL, but through the CPU: see the warning above" if detour else ""
    for dtype in (torch.float32, torch.float64):
        ours = torch.full((numbers,), ranks.rank + 1, dtype=dtype, device=ranks.device)
        ours += torch.arange(numbers, device=ranks.device) % 7
        total = ranks.sum(ours)
        start = time.perf_counter()
        wanted = ranks.size * (ranks.size + 1) / 2 + ranks.size * (torch.arange(numbers) % 7)
        worst = float((total.double().cpu() - wanted).abs().max())
        ranks.sum(ours).sum().item()
        seconds = time.perf_counter() - start
        name = f"sum over {ranks.size} by {ranks.name} on {ranks.device.type}, {str(dtype).removeprefix('torch.')}"
        yield Check(name, float("inf") if detour else worst, 0.0, seconds, note)
    sent = torch.full((1000,), float(ranks.rank), device=ranks.device)
    ranks.broadcast_([sent], root=ranks.size - 1)
    yield Check("broadcast of the last rank's", float((sent - (ranks.size - 1)).abs().max()), 0.0, 0.0)


def show(every: list[list[Check]]) -> bool:
    """Prints each check's worst rank; returns whether all ranks passed all of them."""
    print(f"{'':52} {'worst':>9} {'allowed':>9} {'seconds':>8}")
    for checks in zip(*every, strict=True):
        worst = next((c for c in checks if not c.passed), max(checks, key=lambda c: c.difference or 0.0))
        if worst.difference is None:
            print(f"{worst.name}: {worst.note}")
            continue
        seconds, verdict = max(c.seconds for c in checks), "ok" if worst.passed else "DIFFERS"
        numbers = f"{worst.difference:9.1e} {worst.allowed:9.0e} {seconds:8.3f}"
        print(f"{worst.name:52} {numbers} {verdict} {worst.note}")
    return all(check.passed for checks in every for check in checks)


def main() -> int:
    """Compares on all ranks; rank 0 prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--backend", choices=["horovod", "ddp"], help="default: Horovod where it is installed"
    )
    parser.add_argument(
        "--voxels", type=int, default=50_000, help="rows of each rank's cloud (default: %(default)s)"
    )
    parser.add_argument("--numbers", type=int, default=1 << 22, help="entries of the tensor that is summed")
    arguments = parser.parse_args()
    backend = arguments.backend or ("horovod" if parallel.horovod_works() else None)
    try:
        ranks = parallel.open(backend, world.detect(), device=arguments.device)
    except NoGpuError as error:
        print(f"check_gpu: nothing compared: {error}", file=sys.stderr)
        return error.exit_code
    checks = [*convolutions(ranks.device, arguments.voxels, ranks.rank), *sums(ranks, arguments.numbers)]
    every = ranks.gather_object(checks)
    passed = show(every) if every is not None else None
    passed = ranks.broadcast_object(passed)
    ranks.close()
    return 0 if passed else 1


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main())
