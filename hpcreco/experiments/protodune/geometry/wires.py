"""Geometries described by a few seeds of wires in a YAML file: for detectors that nobody tabulated.

A *seed* is a set of parallel wires on one face: angle, pitch, offset, count, channels. Wires that wrap around the
frame go on behind its left and right edges on the other face, at the opposite angle, and come back: each crossing
is a reflection in the edge. Seeds are reflected until nothing of them is left inside the box. What lies on a face at
one angle is merged into one plane; a gap (or overlap) between two sets is closed by moving their shared boundary to
its middle. ``configs/protodune/geometry/two_faces.yaml`` is an example that explains every key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from pydantic import Field, model_validator

from hpcreco import config
from hpcreco.config import ConfigError, Strict
from hpcreco.experiments.protodune.geometry import (
    PIXEL_SIZE,
    Face,
    Geometry,
    GeometryError,
    WirePlane,
    build,
)

MAX_GAP = 0.5  # pitches between two sets that are closed by moving their boundary; more is a mistake
MAX_CROSSINGS = 100


class Channels(Strict):
    """Channels of a seed's wires: `first`, `first + step`, ..."""

    first: int
    step: int = 1


class Seed(Strict):
    """Wires as a user writes them: wire k lies on ``cos(angle) z + sin(angle) y = offset + k pitch`` (mm, degrees),
    z and y from the low corner of the box. `reflect`: they wrap around the frame.
    """

    plane: str
    face: int = Field(ge=1, le=2)
    angle: float = Field(gt=-90, lt=90)
    pitch: float = Field(gt=0)
    offset: float
    count: int = Field(ge=1)
    channels: Channels | list[int]
    reflect: bool = False

    @model_validator(mode="after")
    def _one_channel_per_wire(self) -> Seed:
        if isinstance(self.channels, list) and len(self.channels) != self.count:
            raise ValueError(f"{len(self.channels)} channels for {self.count} wires")
        return self


class Volume(Strict):
    """One drift volume: its TPC number, the APA and face that read it, its box in detector mm.

    The anode is at the high x of face 1, at the low x of face 2.
    """

    tpc: int
    apa: int
    face: int = Field(ge=1, le=2)
    low: tuple[float, float, float]
    high: tuple[float, float, float]


class Description(Strict):
    """A whole file. All APAs have the same wires."""

    name: str
    volumes: list[Volume] = Field(min_length=1)
    wires: list[Seed] = Field(min_length=1)


@dataclass(frozen=True)
class WireSet:
    """Equidistant wires of one face, offsets ascending: centre of the first and pitch in pixels."""

    face: int
    direction: tuple[float, float]  # (e_z, e_y)
    offset: float
    pitch: float
    channels: np.ndarray  # int32, of each wire

    @property
    def end(self) -> float:
        """Centre of the last wire."""
        return self.offset + (len(self.channels) - 1) * self.pitch

    def cut(self, low: float, high: float) -> WireSet:
        """The wires whose whole strip lies in [low, high]."""
        centre = self.offset + self.pitch * np.arange(len(self.channels))
        keep = np.flatnonzero((centre - self.pitch / 2 >= low) & (centre + self.pitch / 2 <= high))
        first = int(keep[0]) if len(keep) else 0
        return replace(
            self, offset=self.offset + first * self.pitch, channels=self.channels[first : first + len(keep)]
        )


def read(path: Path) -> Geometry:
    """The geometry of a YAML file, or of a shipped one by its name. GeometryError says what is wrong with it."""
    if not path.is_file():
        shipped = config.shipped_configs() / "protodune" / "geometry" / f"{path.name}.yaml"
        if not shipped.is_file():
            raise GeometryError(f"wires:{path}: there is no such file")
        path = shipped
    try:
        raw = yaml.safe_load(path.read_text())
        description = config.build(Description, raw if isinstance(raw, dict) else {}, "")
    except (yaml.YAMLError, ConfigError, OSError, UnicodeDecodeError) as error:
        raise GeometryError(f"{path}: {error}") from error
    return describe(description)


def describe(description: Description) -> Geometry:
    """The faces of a description. GeometryError names the face and plane that do not work."""
    faces = {}
    for volume in description.volumes:
        if volume.tpc in faces:
            raise GeometryError(f"{description.name}: TPC {volume.tpc} is listed twice")
        faces[volume.tpc] = _face(description, volume)
    return build(f"wires:{description.name}", faces)


def _face(description: Description, volume: Volume) -> Face:
    size = [(h - low) / PIXEL_SIZE for low, h in zip(volume.low, volume.high, strict=True)]
    where = f"{description.name}: TPC {volume.tpc}"
    if min(size) <= 0 or any(abs(n - round(n)) > 1e-6 for n in size[1:]):
        raise GeometryError(
            f"{where}: the box from {volume.low} to {volume.high} must be whole pixels of {PIXEL_SIZE} mm in y and z"
        )
    box = (size[2], size[1])  # (z, y)
    planes = []
    for name in dict.fromkeys(seed.plane for seed in description.wires):
        sets = [
            wires
            for seed in description.wires
            if seed.plane == name
            for wires in wire_sets(seed, box)
            if wires.face == volume.face
        ]
        planes.append(merge(name, sets, f"{where}, plane {name}"))
    return Face(
        volume.tpc,
        volume.apa,
        volume.face,
        volume.low,
        volume.high,
        tuple(sorted(planes, key=lambda p: p.angle)),
    )


def wire_sets(seed: Seed, box: tuple[float, float]) -> Iterator[WireSet]:
    """The seed and, if it wraps, all its reflections that reach into a box of (z, y) pixels."""
    e_z, e_y = (round(f(math.radians(seed.angle)), 6) for f in (math.cos, math.sin))
    own = seed.channels
    channels = own if isinstance(own, list) else [own.first + own.step * k for k in range(seed.count)]
    first = WireSet(
        seed.face, (e_z, e_y), seed.offset / PIXEL_SIZE, seed.pitch / PIXEL_SIZE, np.array(channels, np.int32)
    )
    yield first
    if seed.reflect:
        for edge in (0.0, box[0]):
            yield from _around(first, edge, box)


def _around(wires: WireSet, edge: float, box: tuple[float, float]) -> Iterator[WireSet]:
    """Reflections one after the other, the first in the edge z = `edge`, then in the opposite, and so on."""
    for _ in range(MAX_CROSSINGS):
        wires = reflect(wires, edge)
        edge = box[0] - edge
        low, high = extent(wires.direction, box)
        if wires.end < low or wires.offset > high:
            return
        inside = wires.cut(low, high)
        if len(inside.channels):
            yield inside


def reflect(wires: WireSet, edge: float) -> WireSet:
    """The same wires behind the edge z = `edge` (pixels): on the other face, at the opposite angle.

    A line e_z z + e_y y = c becomes e_z z - e_y y = 2 edge e_z - c.
    """
    e_z, e_y = wires.direction
    return WireSet(
        3 - wires.face,
        (e_z, -e_y),
        2 * edge * e_z - wires.end,
        wires.pitch,
        wires.channels[::-1],
    )


def extent(direction: tuple[float, float], box: tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest e_z z + e_y y in a box of (z, y) pixels."""
    ends = [sorted((0.0, e * size)) for e, size in zip(direction, box, strict=True)]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def merge(name: str, sets: Sequence[WireSet], where: str) -> WirePlane:
    """One plane of all sets, which have one angle; boundaries between them move to the middle of the gap."""
    if not sets:
        raise GeometryError(
            f"{where}: no wires; give a seed on this face, or one that wraps with reflect: true"
        )
    directions = {wires.direction for wires in sets}
    if len(directions) > 1:
        raise GeometryError(f"{where}: its wires have several angles, but a plane has one")
    ordered = sorted(sets, key=lambda wires: wires.offset)
    edges: list[np.ndarray] = []
    for wires in ordered:
        own = wires.offset + wires.pitch * (np.arange(len(wires.channels) + 1) - 0.5)
        if edges:
            gap = own[0] - edges[-1][-1]
            if abs(gap) > MAX_GAP * wires.pitch:
                raise GeometryError(
                    f"{where}: {'a gap' if gap > 0 else 'an overlap'} of {abs(gap) * PIXEL_SIZE:.2f} mm between two "
                    f"sets of wires; up to {MAX_GAP} pitches is closed, check offset and count of the seeds"
                )
            own[0] = (own[0] + edges[-1][-1]) / 2
            edges[-1] = edges[-1][:-1]
        edges.append(own)
    ((e_z, e_y),) = directions
    return WirePlane(
        name,
        round(math.degrees(math.atan2(e_y, e_z)), 4),
        ordered[0].pitch,
        ordered[0].offset,
        np.concatenate([wires.channels for wires in ordered]),
        (e_z, e_y + 0.0),
        np.concatenate(edges) if len(ordered) > 1 else None,
    )
