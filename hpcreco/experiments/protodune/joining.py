"""Where the voxels of one TPC lie in a frame that several TPCs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.geometry import DRIFT_SPEED, SIM_T0, Face


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
