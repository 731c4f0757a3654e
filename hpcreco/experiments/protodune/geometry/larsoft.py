"""Geometry from a wire dump of the experiment's own software, for real data and other detectors.

The dump (the JSON layout of Wire-Cell) lists anodes, their faces, the faces' planes and the planes' wires
with end points in mm. A plane becomes a direction, a pitch and an offset fitted to its wires; the strip and
overlap machinery is the same as for the built-in numbers.
"""

from __future__ import annotations

import bz2
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune.geometry import (
    PIXEL_SIZE,
    TPC_LENGTH,
    Face,
    Geometry,
    GeometryError,
    WirePlane,
    build,
)

PLANE_NAMES = ("U", "V", "X")
MAX_RESIDUAL = 0.1  # pixels: wires further from the fitted comb are not one regular plane


def read(path: Path) -> Geometry:
    """Faces of all anodes in a dump (.json or .json.bz2); GeometryError when it is not one."""
    try:
        opener = bz2.open if path.suffix == ".bz2" else open
        with opener(path, "rt") as stream:
            store = json.load(stream)["Store"]
        return build(f"larsoft:{path.name}", dict(_faces(store)))
    except (
        OSError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        json.JSONDecodeError,
        UnicodeDecodeError,
    ) as error:
        raise GeometryError(
            f"{path}: not a wire dump (a JSON object Store with anodes, faces, planes, wires, points): {error}"
        ) from error


def _faces(store: dict[str, Any]) -> list[tuple[int, Face]]:
    points = np.array([[p["Point"][axis] for axis in "xyz"] for p in store["points"]], float)
    wires = [w["Wire"] for w in store["wires"]]
    channel = np.array([w["channel"] for w in wires])
    ends = points[np.array([[w["tail"], w["head"]] for w in wires])]
    found = []
    for anode in (a["Anode"] for a in store["anodes"]):
        faces = [
            [np.array(store["planes"][p]["Plane"]["wires"]) for p in store["faces"][f]["Face"]["planes"]]
            for f in anode["faces"]
        ]
        base = min(int(channel[wires_of].min()) for planes in faces for wires_of in planes)
        for planes in faces:
            face = _face(anode["ident"], [(ends[w], channel[w] - base) for w in planes])
            found.append((face.tpc, face))
    return found


def _face(apa: int, planes: list[tuple[np.ndarray, np.ndarray]]) -> Face:
    """One face from its planes in drift order (ends (W, 2, 3) in mm, local channels (W,)); the last plane collects.

    The anode lies midway between the two induction planes, and the drift volume on the side of the first. A
    volume that looks at x = 0 ends there (the cathode), one that looks away has the nominal length.
    """
    x = [float(ends[:, :, 0].mean()) for ends, _ in planes]
    anode = (x[0] + x[1]) / 2
    number = 1 if x[0] < x[-1] else 2  # face 1 looks towards lower x
    inwards = (number == 1) == (anode > 0)
    length = abs(anode) if inwards else TPC_LENGTH
    collection = planes[-1][0]
    y_low, y_high = collection[:, :, 1].min(), collection[:, :, 1].max()
    centre = collection[:, :, 2].mean(axis=1)
    pitch = (centre.max() - centre.min()) / (len(centre) - 1)
    # whole pixels, so that the collection strips cover every column
    depth = PIXEL_SIZE * math.floor(len(centre) * pitch / PIXEL_SIZE + 1e-6)
    height = PIXEL_SIZE * math.ceil((y_high - y_low) / PIXEL_SIZE - 1e-6)
    middle = (centre.max() + centre.min()) / 2
    low = (anode - length if number == 1 else anode, y_low, middle - depth / 2)
    low = (round(low[0], 3), round(float(low[1]), 3), round(float(low[2]), 3))
    high = (round(low[0] + length, 3), round(low[1] + height, 3), round(low[2] + depth, 3))
    built = [_plane(name, low, *plane) for name, plane in zip(PLANE_NAMES, planes, strict=True)]
    return Face(2 * apa + number - 1, apa, number, low, high, tuple(sorted(built, key=lambda p: p.angle)))


def _plane(
    name: str, corner: tuple[float, float, float], ends: np.ndarray, channels: np.ndarray
) -> WirePlane:
    """Fit direction, pitch and offset (pixels from the box corner) to the wires of a plane."""
    along = (ends[:, 1] - ends[:, 0])[:, [2, 1]]
    along *= np.where(along[:, 1] < 0, -1, 1)[:, None]  # all upwards
    mean = along.sum(axis=0)  # long wires know the direction best
    normal = np.array([mean[1], -mean[0]]) / np.hypot(*mean)
    e_z, e_y = (round(float(v), 6) + 0.0 for v in normal)
    centre = (
        (ends.mean(axis=1)[:, [2, 1]] - np.array([corner[2], corner[1]])) @ np.array([e_z, e_y]) / PIXEL_SIZE
    )
    order = np.argsort(centre)
    number = np.arange(len(order))
    pitch, offset = (round(float(v), 6) for v in np.polyfit(number, centre[order], 1))
    residual = np.abs(centre[order] - (offset + pitch * number)).max()
    if residual > MAX_RESIDUAL:
        raise GeometryError(f"plane {name}: wires are up to {residual:.2f} pixels off equal spacing")
    angle = round(math.degrees(math.atan2(e_y, e_z)), 4)
    return WirePlane(name, angle, pitch, offset, channels[order].astype(np.int32), (e_z, e_y))
