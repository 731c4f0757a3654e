"""Where the boxes of the TPCs lie among the voxels of an xy file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.display.scene import Border
from hpcreco.experiments.protodune.joining import shift


def borders_of(attributes: Mapping[str, Any]) -> tuple[Border, ...]:
    """Borders in voxels of each TPC of an xy file: in drift, where charge of the trigger time is read out.

    Empty for TPCs of another geometry than the one this program knows by name.
    """
    detector = geometry.load()
    tpcs = [int(tpc) for tpc in attributes["tpc"]]
    voxel = np.asarray(attributes["voxel_size_mm"], float)
    if any(tpc not in detector.tpcs for tpc in tpcs) or voxel.min() <= 0:
        return ()
    found = []
    for tpc in tpcs:
        face = detector.face(tpc)
        size = np.asarray(face.r_max) - face.r_min
        start = geometry.DRIFT_SPEED * geometry.SIM_T0
        low, high = np.array([start, 0.0, 0.0]) / voxel, np.array([start + size[0], size[1], size[2]]) / voxel
        if len(tpcs) > 1:
            by = shift(
                face,
                voxel,
                attributes["frame_origin_mm"],
                (attributes.get("joined") or {}).get("t0_us", -geometry.SIM_T0),
            ).voxels
            if face.face == 1:  # mirrored: cell i becomes n - 1 - i, so the place c becomes n - c
                low[0], high[0] = -high[0], -low[0]
            low, high = low + by, high + by
        found.append(Border(f"TPC {tpc}", low, high))
    return tuple(found)
