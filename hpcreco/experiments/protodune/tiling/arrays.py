"""The tiling in plain numpy, pixel by pixel: the same candidates and, charges being whole numbers, the same sums."""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.protodune.overlap import SHARE_UNIT
from hpcreco.experiments.protodune.tiling import exact
from hpcreco.experiments.protodune.tiling.layout import Grid, Layout, Slices


def active_pixels(layout: Layout, p: int, strips: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mask (len(columns), n_y) of the pixels that the given strips of plane p touch."""
    n_y = layout.strip.shape[2]
    edges = np.zeros((len(columns), n_y + 1), np.int32)
    span = layout.span[p][strips][:, columns].astype(np.int64)
    which, row = np.nonzero(span[:, :, 1] > span[:, :, 0])
    np.add.at(edges, (row, span[which, row, 0]), 1)
    np.add.at(edges, (row, span[which, row, 1]), -1)
    return np.cumsum(edges, axis=1)[:, :n_y] > 0


def slice_candidates(layout: Layout, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidate pixels (z, y), sorted, of a slice whose active strips are `active` (P, S)."""
    lit = active | layout.always
    touched = np.ones(layout.strip.shape[1], bool)
    if layout.guide >= 0:
        touched[:] = False
        for low, high in layout.columns[layout.guide][lit[layout.guide]]:
            touched[low:high] = True
    columns = np.flatnonzero(touched)
    mask = np.ones((len(columns), layout.strip.shape[2]), bool)
    for p in range(len(lit)):
        if p != layout.guide and len(columns):
            mask &= active_pixels(layout, p, np.flatnonzero(lit[p]), columns)
    row, y = np.nonzero(mask)
    return columns[row], y


def glows(layout: Layout) -> bool:
    """Whether some pixel is a candidate without any charge."""
    return len(slice_candidates(layout, np.zeros_like(layout.always))[0]) > 0


def _lit(layout: Layout, channels: np.ndarray) -> np.ndarray:
    active = np.zeros_like(layout.always)
    for c in channels:
        active[layout.plane_of[c], layout.strip_of[layout.first_strip[c] : layout.first_strip[c + 1]]] = True
    return active


def _share(
    layout: Layout, z: np.ndarray, y: np.ndarray, channel: np.ndarray, charge: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units int64 (P, pixels) given to the candidates of a slice, units per electron (P,), weight of every channel."""
    n_planes, n_channels = len(layout.always), len(layout.plane_of)
    strip, lower = layout.strip[:, z, y].astype(np.int64), layout.share[:, z, y].astype(np.int64)
    plane = np.arange(n_planes)[:, None]
    first, second = layout.channel[plane, strip], layout.channel[plane, strip + 1]
    weight = np.zeros(n_channels + 1, np.int64)
    np.add.at(weight, first, lower)
    np.add.at(weight, second, SHARE_UNIT - lower)
    weight[n_channels] = 0
    got = weight[channel] > 0
    density = charge[got] / weight[channel[got]]
    size = np.bincount(layout.plane_of[channel], weights=np.abs(charge), minlength=n_planes)
    largest = np.zeros(n_planes)
    np.maximum.at(largest, layout.plane_of[channel[got]], np.abs(density))
    units = np.array([exact.units(*plane) for plane in zip(size, largest, strict=True)])
    ratio = np.zeros(n_channels + 1, np.int64)
    ratio[channel[got]] = np.rint(density * units[layout.plane_of[channel[got]]]).astype(np.int64)
    return ratio[first] * lower + ratio[second] * (SHARE_UNIT - lower), units, weight


def tile(layout: Layout, slices: Slices, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Coords (N, 3), features (N, P), charge lost (n_ticks, P) and number of fine candidates of one event."""
    n_planes, n_z, n_y = layout.strip.shape
    shape = (-(-n_y // grid.dy), -(-n_z // grid.dz))
    n_ticks = len(slices.offsets) - 1
    lost, pixels = np.zeros((n_ticks, n_planes)), 0
    coords, features = [np.zeros((0, 3), np.int32)], [np.zeros((0, n_planes))]
    for x in range(n_ticks // grid.dx):
        total = np.zeros((n_planes, shape[0] * shape[1]))
        touched = np.zeros(shape[0] * shape[1], bool)
        for tick in range(x * grid.dx, (x + 1) * grid.dx):
            part = slice(slices.offsets[tick], slices.offsets[tick + 1])
            channel, charge = slices.channel[part], slices.value[part]
            seen = layout.plane_of[channel] >= 0
            active = seen & (charge > grid.threshold)
            if not (active.any() or grid.glows):
                continue
            z, y = slice_candidates(layout, _lit(layout, channel[active]))
            given, units, weight = _share(layout, z, y, channel[seen], charge[seen])
            missed = active & (weight[channel] == 0)
            np.add.at(lost[tick], layout.plane_of[channel[missed]], charge[missed])
            pixels += len(z)
            cell = (y // grid.dy) * shape[1] + z // grid.dz
            touched[cell] = True
            for p in range(n_planes):
                sums = np.zeros(len(touched), np.int64)
                np.add.at(sums, cell, given[p])
                total[p] += sums / units[p]
        cells = np.flatnonzero(touched)
        coords.append(
            np.stack([np.full(len(cells), x), cells // shape[1], cells % shape[1]], 1).astype(np.int32)
        )
        features.append(total[:, cells].T)
    return np.concatenate(coords), np.concatenate(features), lost, pixels
