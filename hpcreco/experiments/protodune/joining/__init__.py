"""Where the voxels of each TPC lie in a frame that several TPCs share: that of the first one's box.

`groups`, `images` and `truth` put files into it (`hpcreco join-tpcs`), `merging` the output of several TPCs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcreco.experiments.protodune.geometry import DRIFT_SPEED, SIM_T0, Face, Geometry


@dataclass(frozen=True)
class Shift:
    """Whole-voxel shift (3,) of a face into the common frame, and what rounding to voxels leaves over [mm]."""

    voxels: tuple[int, int, int]
    residual_mm: tuple[float, float, float]


def shift(face: Face, voxel_mm: Sequence[float], origin_mm: Sequence[float], t0_us: float = -SIM_T0) -> Shift:
    """Shift for voxels of the given size; the default t0 leaves the drift-time offset in the coordinate."""
    offset = np.array(face.r_min) - np.asarray(origin_mm, float)
    sign = 1.0
    if face.face == 1:
        offset[0] = face.r_max[0] - origin_mm[0]
    else:
        sign = -1.0
    offset[0] += sign * DRIFT_SPEED * (t0_us + SIM_T0)
    voxel = np.asarray(voxel_mm, float)
    n = np.rint(offset / voxel).astype(int)
    residual = n * voxel - offset
    return Shift(
        (int(n[0]), int(n[1]), int(n[2])), (residual[0].item(), residual[1].item(), residual[2].item())
    )


def place(coords: np.ndarray, face: Face, by: Shift, legacy_mirror: bool = False) -> np.ndarray:
    """Local voxels (N, 3) -> common frame. Face 1 is mirrored: cell i covers [i, i + 1) and becomes n - 1 - i.

    `legacy_mirror` gives the original's n - i, which lies one cell too far.
    """
    moved = np.array(coords, dtype=np.int32)
    if face.face == 1:
        moved[:, 0] = -moved[:, 0] - (0 if legacy_mirror else 1)
    return moved + np.array(by.voxels, np.int32)


@dataclass(frozen=True)
class Frame:
    """The frame of several TPCs, for voxels of one size; its origin is the low corner of the first TPC's box."""

    faces: tuple[Face, ...]
    shifts: tuple[Shift, ...]
    t0_us: float
    legacy_mirror: bool

    @property
    def tpcs(self) -> tuple[int, ...]:
        return tuple(face.tpc for face in self.faces)

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        return self.faces[0].r_min

    def place(self, number: int, coords: np.ndarray) -> np.ndarray:
        """Voxels (N, 3) of the TPC at position `number` of the list, in the common frame."""
        return place(coords, self.faces[number], self.shifts[number], self.legacy_mirror)

    def shape(self, local: Sequence[Sequence[int]]) -> tuple[int, int, int]:
        """Voxels from the origin to the far end of all TPCs, given the grid (x, y, z) of each."""
        ends = [
            self.place(number, np.array([[0, 0, 0], grid]) - [[0, 0, 0], [1, 1, 1]]).max(axis=0) + 1
            for number, grid in enumerate(local)
        ]
        x, y, z = np.max(ends, axis=0).tolist()
        return x, y, z

    def record(self) -> dict[str, Any]:
        """What a joined file says of its frame."""
        return {
            "tpcs": list(self.tpcs),
            "origin_mm": list(self.origin_mm),
            "t0_us": self.t0_us,
            "legacy_mirror": self.legacy_mirror,
            "shift_voxels": [list(shift.voxels) for shift in self.shifts],
            "residual_mm": [[round(mm, 6) + 0.0 for mm in shift.residual_mm] for shift in self.shifts],
        }


def frame(
    geometry: Geometry,
    tpcs: Sequence[int],
    voxel_mm: Sequence[float],
    t0_us: float = -SIM_T0,
    legacy_mirror: bool = False,
) -> Frame:
    """The common frame of `tpcs`; GeometryError for one that the geometry does not have."""
    faces = tuple(geometry.face(tpc) for tpc in tpcs)
    shifts = tuple(shift(face, voxel_mm, faces[0].r_min, t0_us) for face in faces)
    return Frame(faces, shifts, t0_us, legacy_mirror)
