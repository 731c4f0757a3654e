"""What the geometry and the options fix before any charge is seen, as flat arrays that the kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcreco.experiments.protodune import overlap
from hpcreco.experiments.protodune.geometry import Face, GeometryError
from hpcreco.experiments.protodune.overlap import SHARE_UNIT

WORD = 8  # strips are padded to whole words of this many flags
MOST_ROWS = (1 << 24) // SHARE_UNIT  # pixels along y whose shares add up to less than 24 bits


class Layout(NamedTuple):
    """P planes, S strips (borders without wire and padding included), C channels; NONE is channel C.

    Strips of a plane are numbered upward along y (along z where its wires run along y), so that a strip with a
    higher number lies above one with a lower number in every column.

    strip : uint16 (P, n_z, n_y), lower strip of each pixel
    share : int16 (P, n_z, n_y), its share in thousandths; the next strip has the rest
    span : int16 (P, S, n_z, 2), y range of a strip in a column; empty, at the frame's edge, where it is outside
    columns : int32 (P, S, 2), columns a strip touches
    channel : uint32 (P, S), channel of each strip
    always : bool (P, S), strips that are active in every slice
    guide : the plane whose strips are whole columns, -1 without one
    plane_of : int32 (C,), plane of a channel, -1 if this face does not see it
    first_strip, strip_of : strips of channel c are strip_of[first_strip[c]:first_strip[c + 1]]
    """

    strip: np.ndarray
    share: np.ndarray
    span: np.ndarray
    columns: np.ndarray
    channel: np.ndarray
    always: np.ndarray
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
    if dead_channels and not 0 <= min(dead_channels) <= max(dead_channels) < n_channels:
        raise GeometryError(f"dead channels must be local channels in [0, {n_channels})")
    n_y, n_z = face.pixels
    if n_y > MOST_ROWS:
        raise GeometryError(f"{n_y} pixels along y are more than the {MOST_ROWS} that tiling can sum exactly")
    tables = overlap.tables(face, legacy_rounding)
    n_planes = len(face.planes)
    n_strips = -(-(max(plane.n_wires for plane in face.planes) + 4) // WORD) * WORD
    strip = np.empty((n_planes, n_z, n_y), np.uint16)
    share = np.empty((n_planes, n_z, n_y), np.int16)
    span = np.zeros((n_planes, n_strips, n_z, 2), np.int16)
    columns = np.zeros((n_planes, n_strips, 2), np.int32)
    channel = np.full((n_planes, n_strips), n_channels, np.uint32)
    always = np.zeros((n_planes, n_strips), bool)
    plane_of = np.full(n_channels, -1, np.int32)
    owner, strip_of = [], []
    for p, (plane, table) in enumerate(zip(face.planes, tables, strict=True)):
        if plane.channels.min() < 0 or plane.channels.max() >= n_channels:
            raise GeometryError(
                f"plane {plane.name} has channels outside the {n_channels} of the waveform file"
            )
        number = np.arange(plane.n_wires + 2)
        strip[p], share[p] = table.strip, table.share
        if plane.direction[1] < 0:  # numbers fall with y: turn them round
            number = n_strips - 2 - number
            strip[p], share[p] = n_strips - 3 - strip[p], SHARE_UNIT - share[p]
        wires = number[1:-1]
        span[p, number], columns[p, number] = table.span.transpose(1, 0, 2), table.columns
        _close(span[p], n_y)
        channel[p, wires] = plane.channels
        always[p, number[[0, -1]]] = active_none
        always[p, wires] |= np.isin(plane.channels, dead_channels)
        always[p] &= columns[p, :, 1] > 0
        plane_of[plane.channels] = p
        seen = columns[p, wires, 1] > 0
        owner.append(plane.channels[seen])
        strip_of.append(wires[seen])
    channel_of_wire = np.concatenate(owner)
    order = np.argsort(channel_of_wire, kind="stable")
    vertical = [p for p, table in enumerate(tables) if table.vertical]
    return Layout(
        strip=strip,
        share=share,
        span=span,
        columns=columns,
        channel=channel,
        always=always,
        guide=vertical[0] if vertical else -1,
        plane_of=plane_of,
        first_strip=np.searchsorted(channel_of_wire[order], np.arange(n_channels + 1)).astype(np.int32),
        strip_of=np.concatenate(strip_of)[order].astype(np.int32),
    )


def _close(span: np.ndarray, n_y: int) -> None:
    """Put the empty spans of the strips above a column's last one at its upper end; those below are at 0.

    A group of neighbouring strips then spans a column from the low end of its first to the high end of its
    last strip, also where these are outside.
    """
    touched = span[:, :, 1] > span[:, :, 0]
    last = len(touched) - 1 - touched[::-1].argmax(axis=0)
    above = np.arange(len(touched))[:, None] > last
    span[above] = n_y
