"""Drift volumes, wire planes and the readout frame of ProtoDUNE-like detectors.

Lengths are mm, times us. A *face* is one drift volume seen by one side of an APA. Its readout ("local")
frame is x' = distance to the anode plus drift speed times the deposit's time, y' and z' = position in the
box. Wire planes are described in *pixel units*: the (z, y) plane of the local frame divided by PIXEL_SIZE,
where wire k of a plane lies on ``e_z * z + e_y * y = offset + k * pitch`` and its region is the strip half a
pitch to either side.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

TPC_LENGTH = 3587.0
APA_HEIGHT, APA_WIDTH = 5984.0, 2300.0
APA_Y, APA_Z0, APA_Z_INC = 76.0, 3.0, 2320.0
DRIFT_SPEED = 1.565  # mm per us
SAMPLING_RATE = 2.0  # ticks per us
N_TICKS = 6000
DRIFT_PER_TICK = DRIFT_SPEED / SAMPLING_RATE
SIM_T0 = 250.0  # us: the readout starts this long before the trigger
PIXEL_SIZE = 2.0
VOXEL_SIZE = (DRIFT_PER_TICK, PIXEL_SIZE, PIXEL_SIZE)  # (x, y, z); the fine x index is the tick
DOWNSAMPLE = (8, 4, 4)
N_CHANNELS = 2560  # per APA
REAL_TPCS = (1, 2, 5, 6, 9, 10)  # the others are the thin volumes behind an APA
NO_WIRE = -1


class GeometryError(ValueError):
    """A geometry that cannot be used: unknown name, unknown TPC, unreadable wire file."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class WirePlane:
    """Parallel wires of one plane: pitch and offset in pixels, the local channel of each wire.

    `edges` (n_wires + 1,), ascending, are the strips' boundaries where the wires are not equidistant throughout.
    """

    name: str
    angle: float
    pitch: float
    offset: float
    channels: np.ndarray
    direction: tuple[float, float]
    edges: np.ndarray | None = None

    @property
    def n_wires(self) -> int:
        """Number of strips with a wire."""
        return len(self.channels)

    @property
    def narrowest(self) -> float:
        """Width of the narrowest strip [pixels]."""
        return self.pitch if self.edges is None else float(np.diff(self.edges).min())

    def strip(self, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Strip (whole float64) at positions `along` across the wires, and the strip's upper edge, in pixels.

        Strips below 0 and from n_wires on have no wire.
        """
        if self.edges is None:
            low_edge = self.offset - self.pitch / 2
            strip = np.floor((along - low_edge) / self.pitch)
            return strip, low_edge + (strip + 1) * self.pitch
        strip = np.searchsorted(self.edges, along, side="right") - 1
        upper = np.append(self.edges, np.inf)[strip + 1]
        return strip.astype(float), upper

    def nearest(self, z_mm: np.ndarray, y_mm: np.ndarray, clip: bool = False) -> np.ndarray:
        """Index of the wire whose strip holds each local point, NO_WIRE (-1) where there is none.

        With `clip` a point beyond the outermost strips belongs to the outermost wire: drifting charge has to end
        somewhere.
        """
        e_z, e_y = self.direction
        along = (e_z * np.asarray(z_mm, float) + e_y * np.asarray(y_mm, float)) / PIXEL_SIZE
        wire = self.strip(along)[0].astype(np.int64)
        if clip:
            return np.clip(wire, 0, self.n_wires - 1)
        return np.where((wire >= 0) & (wire < self.n_wires), wire, NO_WIRE)


@dataclass(frozen=True, eq=False)
class Face:
    """One drift volume: its box in the detector frame and the planes that read it, sorted by angle."""

    tpc: int
    apa: int
    face: int
    r_min: tuple[float, float, float]
    r_max: tuple[float, float, float]
    planes: tuple[WirePlane, ...]

    @property
    def pixels(self) -> tuple[int, int]:
        """Number of pixels along y and along z."""
        n_y, n_z = (round((self.r_max[axis] - self.r_min[axis]) / PIXEL_SIZE) for axis in (1, 2))
        return n_y, n_z

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Plane names in the order of the feature columns."""
        return tuple(plane.name for plane in self.planes)


@dataclass(frozen=True, eq=False)
class Geometry:
    """A named set of faces. `digest` identifies every number in it."""

    name: str
    faces: Mapping[int, Face]
    digest: str

    @property
    def tpcs(self) -> tuple[int, ...]:
        """Known TPC numbers, ascending."""
        return tuple(sorted(self.faces))

    def face(self, tpc: int) -> Face:
        """The face of a TPC; `GeometryError` names the known ones."""
        try:
            return self.faces[tpc]
        except KeyError:
            known = ", ".join(map(str, self.tpcs))
            raise GeometryError(f"geometry {self.name} has no TPC {tpc}; it has {known}") from None

    def to_local(
        self, tpc: int, points_mm: np.ndarray, time_us: np.ndarray | float, limits: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Detector points (N, 3) and deposit times (N,) relative to the trigger -> readout frame.

        Returns local mm (N, 3), the drift time already added to x, and a mask of the points inside both the
        box and the readout window. With ``limits=False`` the mask is all true.
        """
        face = self.face(tpc)
        points = np.asarray(points_mm, float).reshape(-1, 3)
        low, high = np.array(face.r_min), np.array(face.r_max)
        local = points - low
        if face.face == 1:  # the anode is at the upper x of face 1, at the lower x of face 2
            local[:, 0] = high[0] - points[:, 0]
        keep = np.ones(len(points), bool)
        if limits:
            keep = ((local >= 0) & (local < high - low)).all(axis=1)
        local[:, 0] += DRIFT_SPEED * (np.asarray(time_us, float) + SIM_T0)
        if limits:
            keep &= (local[:, 0] >= 0) & (local[:, 0] < N_TICKS * DRIFT_PER_TICK)
        return local, keep


def seeing_tpcs(geometry: Geometry) -> tuple[int, ...]:
    """TPCs with a drift volume worth the name: ProtoDUNE's thin volumes behind an APA are none."""
    if geometry.name == "pdsp" or geometry.name.startswith("larsoft:"):
        return tuple(tpc for tpc in REAL_TPCS if tpc in geometry.tpcs)
    return geometry.tpcs


def build(name: str, faces: Mapping[int, Face]) -> Geometry:
    """A Geometry with the digest of its contents."""
    content = []
    for _, face in sorted(faces.items()):
        box = [round(v, 6) for v in (*face.r_min, *face.r_max)]
        planes = [
            [
                p.name,
                *(round(v, 6) for v in (p.angle, p.pitch, p.offset, *p.direction)),
                p.channels.tolist(),
                *([] if p.edges is None else [p.edges.round(6).tolist()]),
            ]
            for p in face.planes
        ]
        content.append([face.tpc, face.apa, face.face, box, planes])
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return Geometry(name=name, faces=dict(faces), digest=digest)


# Face 1 and 2 of the original program: name, angle, pitch [pixel], offset [mm, detector frame].
_PDSP_PLANES = {
    1: (("U", 35.7, 2.3345, 52.1), ("V", -35.7, 2.3345, -3530.801), ("X", 0.0, 2.395, 5.75)),
    2: (("U", -35.7, 2.3345, -3535.01), ("V", 35.7, 2.3345, 49.8), ("X", 0.0, 2.395, 5.6)),
}


def _pdsp_channels(face: int, plane: str) -> np.ndarray:
    """Local channel of every wire. 800 U (V) channels serve 1148 strips: the wires wrap around the frame."""
    if plane == "X":
        return (np.arange(480) + (1600 if face == 1 else 2080)).astype(np.int32)
    w = np.arange(1148)
    channels = {
        (1, "U"): np.where(w < 348, 347 - w, 799 - (w - 348)),
        (1, "V"): np.where(w < 800, w + 800, w),
        (2, "U"): np.where(w < 400, w + 400, w - 400),
        (2, "V"): np.where(w < 748, 1547 - w, 1599 - (w - 748)),
    }
    return channels[face, plane].astype(np.int32)


def _pdsp_plane(face: int, name: str, angle: float, pitch: float, offset_mm: float) -> WirePlane:
    e_z, e_y = (round(f(math.radians(angle)), 6) for f in (math.cos, math.sin))
    # offsets were given for the detector origin: move them to the corner of the box of the first APA
    offset = round(offset_mm / PIXEL_SIZE - (e_z * APA_Z0 + e_y * APA_Y) / PIXEL_SIZE, 6)
    return WirePlane(name, angle, pitch, offset, _pdsp_channels(face, name), (e_z, e_y))


@lru_cache(maxsize=1)
def _pdsp() -> Geometry:
    planes = {
        face: tuple(sorted((_pdsp_plane(face, *row) for row in rows), key=lambda p: p.angle))
        for face, rows in _PDSP_PLANES.items()
    }
    faces = {}
    for tpc in range(12):
        apa, face = tpc // 2, tpc % 2 + 1
        x = TPC_LENGTH if apa % 2 else -TPC_LENGTH
        low = (x - TPC_LENGTH if face == 1 else x, APA_Y, APA_Z0 + APA_Z_INC * (apa // 2))
        high = (low[0] + TPC_LENGTH, low[1] + APA_HEIGHT, low[2] + APA_WIDTH)
        faces[tpc] = Face(tpc, apa, face, low, high, planes[face])
    return build("pdsp", faces)


def load(spec: str = "pdsp") -> Geometry:
    """``pdsp`` (the original program's numbers), ``larsoft:<wire dump .json or .json.bz2>``, ``wires:<.yaml>`` (seeds
    of wires, see the module `wires`) or ``saved:<.h5>`` (by ``hpcreco protodune geometry --save``).
    """
    if spec == "pdsp":
        return _pdsp()
    kind, _, path = spec.partition(":")
    if path and kind in _READERS:
        module = importlib.import_module(f"{__name__}.{kind}")
        return module.read(Path(path))
    raise GeometryError(
        f"unknown geometry {spec!r}: expected pdsp, larsoft:<wire dump .json.bz2>, wires:<description .yaml> or "
        "saved:<.h5>"
    )


_READERS = ("larsoft", "wires", "saved")  # modules of this package
