"""How a unit pixel of the (z, y) plane is shared between the strips of a wire plane, in closed form.

A strip is wider than a pixel's projection on the plane's direction (checked at build time), so a pixel meets
at most two strips: `strip` and `strip + 1`. Strips outside [0, n_wires) are regions without a wire (NONE).
Shares are stored in thousandths: the original rounds them to three decimals, and integers make every later
sum exact.
"""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.protodune.geometry import Face, GeometryError, WirePlane

SHARE_UNIT = 1000
ACTIVE_SHARE = 1e-9  # a smaller unrounded share is numerical noise, not contact
_COLUMNS_AT_ONCE = 128


def lower_share(plane: WirePlane, iz: np.ndarray, iy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strip holding the low corner of pixel(s) (iz, iy) and the exact area fraction of the pixel in it.

    The rest of the pixel, if any, lies in the next strip. With a, b the larger and smaller |component| of
    the direction and t the distance from the low corner to the strip's upper edge, the area below the edge
    is first a quadratic, then a linear, then again a quadratic function of t.
    """
    e_z, e_y = plane.direction
    a, b = max(abs(e_z), abs(e_y)), min(abs(e_z), abs(e_y))
    if plane.narrowest <= a + b:
        raise GeometryError(
            f"plane {plane.name}: pitch {plane.narrowest:.4f} pixels is not above the pixel's width {a + b:.4f}: "
            "a pixel would meet three strips"
        )
    corner = e_z * np.asarray(iz) + e_y * np.asarray(iy) + min(0.0, e_z) + min(0.0, e_y)
    strip, upper_edge = plane.strip(corner)
    t = upper_edge - corner
    if b < 1e-9:
        share = np.minimum(t / a, 1.0)
    else:
        share = np.where(t <= b, t * t / (2 * a * b), (t - b / 2) / a)
        share = np.where(t > a, 1 - (a + b - t) ** 2 / (2 * a * b), share)
        share = np.where(t >= a + b, 1.0, share)
    return strip.astype(np.int64), share


def round_share(share: np.ndarray) -> np.ndarray:
    """Thousandths, half to even as numpy.round does."""
    return np.rint(np.asarray(share) * SHARE_UNIT).astype(np.int16)


def shares(plane: WirePlane, iz: int, iy: int) -> dict[int, float]:
    """Rounded shares of one pixel by wire index; NONE is key -1. Zero shares are dropped."""
    strip, lower = lower_share(plane, np.array([iz]), np.array([iy]))
    first = int(round_share(lower)[0])
    found: dict[int, float] = {}
    for wire, part in ((int(strip[0]), first), (int(strip[0]) + 1, SHARE_UNIT - first)):
        if part:
            key = wire if 0 <= wire < plane.n_wires else -1
            found[key] = found.get(key, 0) + part / SHARE_UNIT
    return found


class PlaneTable:
    """Overlaps of every pixel of a face with one plane.

    Strips are numbered from 0 = "below the first wire" to n_wires + 1 = "above the last wire": wire w is
    strip w + 1.

    strip : uint16 (n_z, n_y), the lower strip of each pixel
    share : int16 (n_z, n_y), its rounded share in thousandths; strip + 1 has the rest
    span : int16 (n_z, n_strips, 2), first and past-the-last y of the pixels of a column that a strip touches
    columns : int32 (n_strips, 2), first and past-the-last column a strip touches
    vertical : the wires run along y, so that a strip touches whole columns
    """

    def __init__(self, plane: WirePlane, pixels: tuple[int, int], legacy_rounding: bool = False) -> None:
        n_y, n_z = pixels
        n_strips = plane.n_wires + 2
        if max(n_y, n_strips) > np.iinfo(np.int16).max:
            raise GeometryError(f"plane {plane.name}: {n_y} pixels, {n_strips} strips do not fit 16 bits")
        self.vertical = abs(plane.direction[1]) < 1e-9
        self.strip = np.empty((n_z, n_y), np.uint16)
        self.share = np.empty((n_z, n_y), np.int16)
        self.span = np.zeros((n_z, n_strips, 2), np.int16)
        for first in range(0, n_z, _COLUMNS_AT_ONCE):
            block = slice(first, min(first + _COLUMNS_AT_ONCE, n_z))
            self._fill(plane, block, legacy_rounding)
        touched = self.span[:, :, 1] > self.span[:, :, 0]
        self.columns = np.zeros((n_strips, 2), np.int32)
        any_column = touched.any(axis=0)
        self.columns[any_column, 0] = touched.argmax(axis=0)[any_column]
        self.columns[any_column, 1] = n_z - touched[::-1].argmax(axis=0)[any_column]

    def _fill(self, plane: WirePlane, block: slice, legacy_rounding: bool) -> None:
        iz = np.arange(block.start, block.stop)[:, None]
        iy = np.arange(self.strip.shape[1])[None, :]
        wire, exact = lower_share(plane, iz, iy)
        rounded = round_share(exact)
        # regions far outside the wires are all NONE: fold them onto the two border strips
        outside_low, outside_high = wire < -1, wire >= plane.n_wires
        rounded = np.where(outside_low | outside_high, SHARE_UNIT, rounded)
        strip = np.clip(wire + 1, 0, plane.n_wires + 1)
        self.strip[block], self.share[block] = strip, rounded
        if legacy_rounding:
            below, above = rounded > 0, rounded < SHARE_UNIT
        else:
            folded = outside_low | outside_high
            below = (exact > ACTIVE_SHARE) | folded
            above = (1 - exact > ACTIVE_SHARE) & ~folded
        self._touch(block.start, strip, below)
        self._touch(block.start, strip + 1, above)

    def _touch(self, first: int, strip: np.ndarray, active: np.ndarray) -> None:
        """Grow the spans of the strips of one block of columns by the active pixels.

        Strip numbers are monotonic along a column, so the pixels of a strip are one run.
        """
        column, y = np.nonzero(active)
        strip_of = strip[column, y]
        change = np.flatnonzero((np.diff(strip_of) != 0) | (np.diff(column) != 0)) + 1
        starts, ends = np.r_[0, change], np.r_[change, len(y)] - 1
        if len(y):
            span = self.span[column[starts] + first, strip_of[starts]]
            empty = span[:, 1] == 0
            low = np.where(empty, y[starts], np.minimum(y[starts], span[:, 0]))
            high = np.maximum(y[ends] + 1, span[:, 1])
            self.span[column[starts] + first, strip_of[starts]] = np.stack([low, high], axis=1)


def tables(face: Face, legacy_rounding: bool = False) -> tuple[PlaneTable, ...]:
    """Overlap tables of the planes of a face, in its order (38 MB and half a second for ProtoDUNE)."""
    return tuple(PlaneTable(plane, face.pixels, legacy_rounding) for plane in face.planes)
