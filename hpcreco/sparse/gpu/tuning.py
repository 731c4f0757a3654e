"""Block sizes of the Triton kernels: tried once per device, kernel, type and widths, and kept on disk.

Widths rule the choice, not the number of rows, which is another in every step. Where the choices are kept:
$XDG_CACHE_HOME/hpcreco (default ~/.cache/hpcreco), one file per kind of GPU and version of Triton; remove it, or set
HPCRECO_TUNING=anew, to have them made again, and set HPCRECO_TUNING=off to do without.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

LOG = logging.getLogger("hpcreco")
VARIABLE = "HPCRECO_TUNING"
FEWEST_ROWS = 4096
"""With fewer rows the time is that of the launch, whatever the blocks."""
ROUNDS = 10


@dataclass(frozen=True)
class Blocks:
    """Rows of a tile, warps of a program, stages of the pipeline that loads ahead."""

    rows: int
    warps: int
    stages: int


#: the first is used where nothing is tried; two stages would load nothing ahead, for rows are found by loads themselves
CANDIDATES = {
    "convolve": (Blocks(64, 4, 4), Blocks(128, 4, 3), Blocks(128, 8, 4), Blocks(32, 2, 5)),
    "weight_gradient": (Blocks(64, 4, 3), Blocks(32, 4, 4), Blocks(128, 8, 3)),
}


def channels(width: int, most: int = 64) -> int:
    """Channels of a block: a power of two from 16 to `most`, the one that covers `width` with least to spare, the
    largest of equals.
    """
    sizes = [size for size in (16, 32, 64) if size <= most]
    return min(sizes, key=lambda size: (-(-width // size) * size, -size))


def float32_products() -> str:
    """How float32 is multiplied, "tf32" or "ieee", by the switch that also rules torch's own products."""
    switch = torch.backends.cuda.matmul
    # Reading the older switch raises where the newer one was set.
    precision = getattr(switch, "fp32_precision", None) or ("tf32" if switch.allow_tf32 else "ieee")
    return "tf32" if precision == "tf32" else "ieee"


def choose(
    kernel: str, like: Tensor, widths: tuple[int, ...], rows: int, run: Callable[[Blocks], object]
) -> Blocks:
    """The fastest of a kernel's candidates for these widths, by the cache or by running all on this call's data.

    like: a tensor of the call, for device and type.
    """
    candidates = CANDIDATES[kernel]
    mode = os.environ.get(VARIABLE, "")
    if not like.is_cuda or mode == "off":
        return candidates[0]
    kept = _kept(like.device.index or 0, mode)
    numbers = str(like.dtype).removeprefix("torch.") if like.dtype != torch.float32 else float32_products()
    key = f"{kernel} {numbers} {'x'.join(map(str, widths))}"
    if key not in kept.choices:
        if rows < FEWEST_ROWS:
            return candidates[0]
        if not kept.told:
            LOG.info(
                "choosing block sizes of sparse kernels for this GPU, which takes minutes once: %s", kept.file
            )
            kept.told = True
        kept.keep(key, fastest(candidates, lambda blocks: milliseconds(lambda: run(blocks))))
    return kept.choices[key]


def fastest(candidates: tuple[Blocks, ...], cost: Callable[[Blocks], float]) -> Blocks:
    """The candidate of least cost; one that the device cannot run costs more than any other, the first is kept then."""
    from triton.runtime.errors import OutOfResources

    costs = []
    for blocks in candidates:
        try:
            costs.append(cost(blocks))
        except OutOfResources:
            costs.append(float("inf"))
    return candidates[costs.index(min(costs))]


def milliseconds(work: Callable[[], object]) -> float:
    """Least time of a few runs on the current device, after one that compiles."""
    work()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(ROUNDS + 1)]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    marks[-1].synchronize()
    return min(first.elapsed_time(second) for first, second in itertools.pairwise(marks))


class Kept:
    """The choices for one kind of device, in memory and in a file; ranks that write at the same time lose nothing but
    time.
    """

    def __init__(self, file: Path, anew: bool = False) -> None:
        self.file = file
        self.told = False
        self.choices = {} if anew else self._read()

    def _read(self) -> dict[str, Blocks]:
        try:
            return {key: Blocks(**value) for key, value in json.loads(self.file.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):  # none yet, or of another version
            return {}

    def keep(self, key: str, blocks: Blocks) -> None:
        """Remember a choice; the file appears complete or not at all, and without one the choice lasts for this run."""
        self.choices[key] = blocks
        together = self._read() | self.choices
        text = json.dumps({k: asdict(v) for k, v in sorted(together.items())}, indent=1)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.file.parent, delete=False) as part:
                part.write(text)
            os.replace(part.name, self.file)
        except OSError:
            pass


@functools.cache
def _kept(index: int, mode: str) -> Kept:
    import triton

    name = torch.cuda.get_device_name(index).replace(" ", "-").replace("/", "-")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Kept(cache / "hpcreco" / f"triton-{triton.__version__}-{name}.json", anew=mode == "anew")
