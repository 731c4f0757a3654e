"""What the geometry and the options fix before any charge is seen, as flat arrays that the kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcreco.experiments.protodune import overlap
from hpcreco.experiments.protodune.geometry import Face, GeometryError


class Layout(NamedTuple):
    """P planes, S strips (the largest count, borders without wire included), C channels; NONE is channel C.

    strip : uint16 (P, n_z, n_y), lower strip of each pixel
    share : int16 (P, n_z, n_y), its share in thousandths; the next strip has the rest
    span : int16 (P, n_z, S, 2), y range of a strip in a column
    columns : int32 (P, S, 2), columns a strip touches
    strips : int32 (P, n_z, 2), first and last strip that touches a column
    channel : uint32 (P, S + 1), channel of each strip
    always : bool (P, S), strips that are active in every slice
    descending : bool (P,), strip numbers fall with y
    guide : the plane whose strips are whole columns, -1 without one
    plane_of : int32 (C,), plane of a channel, -1 if this face does not see it
    first_strip, strip_of : strips of channel c are strip_of[first_strip[c]:first_strip[c + 1]]
    """

    strip: np.ndarray
    share: np.ndarray
    span: np.ndarray
    columns: np.ndarray
    strips: np.ndarray
    channel: np.ndarray
    always: np.ndarray
    descending: np.ndarray
    guide: int
    plane_of: np.ndarray
    first_strip: np.ndarray
    strip_of: np.ndarray


class Slices(NamedTuple):
    """Samples of one event: those of tick t are [offsets[t], offsets[t + 1]), channels ascending."""

    offsets: np.ndarray  # int64 (n_ticks + 1,)
    channel: np.ndarray  # int32 (n,)
    value: np.ndarray  # float64 (n,)


class Grid(NamedTuple):
    """Coarse cell sizes in fine voxels, and the rule for an active sample."""

    dx: int
    dy: int
    dz: int
    threshold: float
    glows: bool  # some pixel is a candidate without any charge, so that no slice may be skipped


def build(
    face: Face,
    n_channels: int,
    active_none: bool = True,
    dead_channels: tuple[int, ...] = (),
    legacy_rounding: bool = False,
) -> Layout:
    """Tables of a face; raises GeometryError when a wire or a dead channel is outside [0, n_channels)."""
    tables = overlap.tables(face, legacy_rounding)
    n_strips = max(plane.n_wires for plane in face.planes) + 2
    n_planes = len(face.planes)
    span = np.zeros((n_planes, *tables[0].span.shape[:1], n_strips, 2), np.int16)
    columns = np.zeros((n_planes, n_strips, 2), np.int32)
    channel = np.full((n_planes, n_strips + 1), n_channels, np.uint32)
    always = np.zeros((n_planes, n_strips), bool)
    plane_of = np.full(n_channels, -1, np.int32)
    if dead_channels and not 0 <= min(dead_channels) <= max(dead_channels) < n_channels:
        raise GeometryError(f"dead channels must be local channels in [0, {n_channels})")
    owner, strip_of = [], []
    for p, (plane, table) in enumerate(zip(face.planes, tables, strict=True)):
        if plane.channels.min() < 0 or plane.channels.max() >= n_channels:
            raise GeometryError(
                f"plane {plane.name} has channels outside the {n_channels} of the waveform file"
            )
        used = plane.n_wires + 2
        span[p, :, :used], columns[p, :used] = table.span, table.columns
        channel[p, 1 : plane.n_wires + 1] = plane.channels
        always[p, [0, used - 1]] = active_none
        always[p, 1 : plane.n_wires + 1] |= np.isin(plane.channels, dead_channels)
        plane_of[plane.channels] = p
        owner.append(plane.channels)
        strip_of.append(np.arange(1, plane.n_wires + 1))
    channel_of_wire = np.concatenate(owner)
    order = np.argsort(channel_of_wire, kind="stable")
    vertical = [p for p, table in enumerate(tables) if table.vertical]
    return Layout(
        strip=np.stack([table.strip for table in tables]),
        share=np.stack([table.share for table in tables]),
        span=span,
        columns=columns,
        strips=_strips_of_columns(span),
        channel=channel,
        always=always,
        descending=np.array([plane.direction[1] < 0 for plane in face.planes]),
        guide=vertical[0] if vertical else -1,
        plane_of=plane_of,
        first_strip=np.searchsorted(channel_of_wire[order], np.arange(n_channels + 1)).astype(np.int32),
        strip_of=np.concatenate(strip_of)[order].astype(np.int32),
    )


def _strips_of_columns(span: np.ndarray) -> np.ndarray:
    """First and last strip (P, n_z, 2) with pixels in each column; those between have some too, without a gap."""
    touched = span[:, :, :, 1] > span[:, :, :, 0]
    last = touched.shape[2] - 1 - touched[:, :, ::-1].argmax(axis=2)
    return np.stack([touched.argmax(axis=2), last], axis=2).astype(np.int32)
