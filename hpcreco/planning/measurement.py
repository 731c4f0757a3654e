"""What a few steps took, as numbers that can be kept and read again on another machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.planning.network import Network

FORMAT = "hpcreco/measurement"
VERSION = 2


class MeasurementError(ValueError):
    """A measurement cannot be read or does not fit the config."""

    exit_code = 2


@dataclass(frozen=True)
class Line:
    """constant + slope * cost; `deviation` is the median relative distance of the points from it."""

    constant: float
    slope: float
    deviation: float = 0.0

    def at(self, cost: float | np.ndarray) -> Any:
        """The value at `cost`."""
        return self.constant + self.slope * cost


@dataclass(frozen=True)
class Measurement:
    """Seconds and bytes of one rank in one stage; costs are in the experiment's unit (voxels, hits, pulses).

    forward_backward, forward, reading: seconds of one micro-batch of a cost (reading: by one thread). update: seconds
    of the optimizer's step. memory: peak bytes of the process (on a GPU, of its memory) with a micro-batch of a cost;
    data: bytes of a batch of a cost. save: seconds that training stands still for a checkpoint; start: from the
    process's start to the first step, 0 in later stages. points: (cost, seconds, peak bytes) as measured, in the order
    of cost. gradients: bytes of each bucket, in the order of sending; packing: seconds that a rank works on them.
    """

    stage: str
    config: str
    machine: str
    device: str
    threads: int
    forward_backward: Line
    forward: Line
    reading: Line
    update: float
    memory: Line
    data: Line
    save: float
    start: float
    parameters: int
    gradients: tuple[float, ...]
    packing: float
    points: tuple[tuple[float, float, float], ...]
    network: Network

    @property
    def largest(self) -> float:
        """The largest cost that was measured; what is said of larger ones is extrapolated."""
        return self.points[-1][0]

    def scaled(self, factor: float) -> Measurement:
        """The same with all computing `factor` times as long."""
        lines = {
            name: Line(line.constant * factor, line.slope * factor, line.deviation)
            for name, line in (("forward_backward", self.forward_backward), ("forward", self.forward))
        }
        return replace(self, update=self.update * factor, **lines)  # type: ignore[arg-type]


def line(costs: Sequence[float], values: Sequence[float]) -> Line:
    """The line with constant and slope >= 0 of the least squared relative deviations. One point: a constant of 0."""
    from scipy.optimize import nnls

    x, y = np.asarray(costs, float), np.maximum(np.asarray(values, float), 1e-12)
    if len(set(costs)) == 1:
        return Line(0.0, float(np.median(y)) / x[0]) if x[0] else Line(float(np.median(y)), 0.0)
    unit = float(x.max())  # columns of one size: costs are large numbers
    (constant, slope), _ = nnls(np.column_stack([1 / y, x / unit / y]), np.ones(len(y)))
    found = Line(float(constant), float(slope) / unit)
    return replace(found, deviation=float(np.median(np.abs(found.at(x) / y - 1))))


def write(stages: Sequence[Measurement], path: Path) -> None:
    """As JSON, complete or not at all."""
    from hpcreco import shards

    content = {"format": FORMAT, "version": VERSION, "stages": [asdict(stage) for stage in stages]}
    with shards.atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read(path: Path, stages: Sequence[str] | None = None) -> tuple[Measurement, ...]:
    """The inverse of `write`. Raises MeasurementError, also where `stages` is given and they are not those."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MeasurementError(
            f"--measured {path}: {error}; `hpcreco plan CONFIG -o {path}` makes one"
        ) from error
    kind = (content.get("format"), content.get("version")) if isinstance(content, dict) else None
    if kind != (FORMAT, VERSION):
        raise MeasurementError(
            f"--measured {path} is no measurement of this version; make it again with -o {path}"
        )
    try:
        found = tuple(_parsed(values) for values in content["stages"])
    except (KeyError, TypeError) as error:
        raise MeasurementError(f"--measured {path}: {error}; make it again with -o {path}") from error
    names = [one.stage for one in found]
    if stages is not None and names != list(stages):
        raise MeasurementError(
            f"--measured {path} is of the stages {', '.join(names)}, the config has {', '.join(stages)}; "
            f"make it again with -o {path}"
        )
    return found


def _parsed(values: dict[str, Any]) -> Measurement:
    lines = {
        name: Line(**values[name]) for name in ("forward_backward", "forward", "reading", "memory", "data")
    }
    changed = {
        "network": Network(**values["network"]),
        "gradients": tuple(values["gradients"]),
        "points": tuple(tuple(point) for point in values["points"]),
    }
    return Measurement(**{**values, **lines, **changed})
