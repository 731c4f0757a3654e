"""The part of an event that is drawn, in voxels, and the units of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.display.scene import DisplayError, Scene

Box = tuple[tuple[float | None, float | None], ...]
"""Low and high of x, y, z; None leaves a side to the event."""


@dataclass(frozen=True)
class Region:
    """Voxels low to high (3,); voxel v reaches from v * size + origin to (v + 1) * size + origin in `unit`."""

    low: np.ndarray
    high: np.ndarray
    size: np.ndarray
    origin: np.ndarray
    unit: str

    @property
    def extent(self) -> np.ndarray:
        """(3,) lengths of the region."""
        return (self.high - self.low) * self.size

    def limits(self, axis: int) -> tuple[float, float]:
        """First and last coordinate along `axis`."""
        first, last = (edge[axis] * self.size[axis] + self.origin[axis] for edge in (self.low, self.high))
        return float(first), float(last)

    def at(self, voxels: np.ndarray) -> np.ndarray:
        """Positions (n, 3) of places given in voxels: corners if whole, middles if half numbers."""
        return voxels * self.size + self.origin

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(n,) which of the voxels (n, 3) are in the region."""
        return np.all((points >= self.low) & (points < self.high), axis=1)


def parse_box(text: str) -> Box:
    """Read ``x0:x1,y0:y1,z0:z1``; an empty side or axis is open, as in ``1000:2000,,:900``. Raises DisplayError."""
    parts = text.split(",")
    try:
        if len(parts) != 3:
            raise ValueError
        box = tuple(_side(part) for part in parts)
    except ValueError:
        raise DisplayError(
            f"--box {text}: expected three ranges x0:x1,y0:y1,z0:z1, where numbers may be left out, "
            "e.g. 1000:2000,,:900"
        ) from None
    for name, (low, high) in zip("xyz", box, strict=True):
        if low is not None and high is not None and not low < high:
            raise DisplayError(f"--box {text}: the range of {name} is empty")
    return box


def _side(part: str) -> tuple[float | None, float | None]:
    if not part.strip():
        return None, None
    low, high = part.split(":")
    return (float(low) if low.strip() else None), (float(high) if high.strip() else None)


def region_of(scenes: Sequence[Scene], unit: str = "mm", box: Box | None = None) -> Region:
    """The region that holds all scenes (they share voxel size and frame), cut by `box`, which is in `unit`.

    Raises DisplayError when the box holds nothing of the event's frame.
    """
    bounds = [_bounds(scene) for scene in scenes]
    low, high = np.min([b[0] for b in bounds], axis=0), np.max([b[1] for b in bounds], axis=0)
    mm = unit == "mm"
    size = np.asarray(scenes[0].cell if mm else (1.0, 1.0, 1.0), float)
    origin = np.asarray(scenes[0].origin if mm else (0.0, 0.0, 0.0), float)
    for axis, (first, last) in enumerate(box or ()):
        if first is not None:
            low[axis] = np.floor((first - origin[axis]) / size[axis] + 1e-9)
        if last is not None:
            high[axis] = np.ceil((last - origin[axis]) / size[axis] - 1e-9)
        if low[axis] >= high[axis]:
            first, last = (
                float(v * size[axis] + origin[axis]) for v in (bounds[0][0][axis], bounds[0][1][axis])
            )
            raise DisplayError(
                f"the box holds nothing of the event, which has {'xyz'[axis]} from {first:.0f} to {last:.0f} {unit}"
            )
    return Region(low, high, size, origin, unit)


def _bounds(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """First voxel (3,) and one past the last (3,) of what is worth showing, with a margin of 2 %.

    It holds all of the truth and 99.9 % of the candidates along each axis: a stray ghost does not shrink
    a shower to a dot.
    """
    corners = [
        scene.truth[0],
        np.quantile(scene.candidates, [0.001, 0.999], axis=0) if len(scene.candidates) else [],
    ]
    points = np.concatenate([np.reshape(c, (-1, 3)) for c in corners])
    if len(points) == 0:
        return np.zeros(3, np.int64), np.ones(3, np.int64)
    low, high = np.floor(points.min(0)).astype(np.int64), np.ceil(points.max(0)).astype(np.int64) + 1
    margin = np.maximum(1, (high - low) // 50)
    # the readout frame of one TPC begins at 0; in a common frame drift coordinates may be negative
    low = low - margin if len(scene.tpcs) > 1 else np.maximum(low - margin, 0)
    return low, high + margin
