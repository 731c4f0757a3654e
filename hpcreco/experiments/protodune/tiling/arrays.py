"""The tiling in plain numpy: the same candidates and, addition by addition, the same sums as the kernels."""

from __future__ import annotations

import numpy as np

from hpcreco.experiments.protodune.overlap import SHARE_UNIT
from hpcreco.experiments.protodune.tiling.layout import Grid, Layout, Slices


def active_pixels(layout: Layout, p: int, strips: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mask (len(columns), n_y) of the pixels that the given strips of plane p touch."""
    n_y = layout.strip.shape[2]
    edges = np.zeros((len(columns), n_y + 1), np.int32)
    span = layout.span[p][columns][:, strips].astype(np.int64)
    row, which = np.nonzero(span[:, :, 1] > span[:, :, 0])
    np.add.at(edges, (row, span[row, which, 0]), 1)
    np.add.at(edges, (row, span[row, which, 1]), -1)
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
) -> tuple[np.ndarray, np.ndarray]:
    """Charge (P, pixels) given to the candidates of a slice, and the weight of every channel."""
    n_planes, n_channels = len(layout.always), len(layout.plane_of)
    strip, lower = layout.strip[:, z, y].astype(np.int64), layout.share[:, z, y].astype(np.int64)
    plane = np.arange(n_planes)[:, None]
    first, second = layout.channel[plane, strip], layout.channel[plane, strip + 1]
    weight = np.zeros(n_channels + 1, np.int64)
    np.add.at(weight, first, lower)
    np.add.at(weight, second, SHARE_UNIT - lower)
    weight[n_channels] = 0
    ratio = np.zeros(n_channels + 1)
    got = weight[channel] > 0
    ratio[channel[got]] = charge[got] / weight[channel[got]]
    return ratio[first] * lower + ratio[second] * (SHARE_UNIT - lower), weight


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
            given, weight = _share(layout, z, y, channel[seen], charge[seen])
            missed = active & (weight[channel] == 0)
            np.add.at(lost[tick], layout.plane_of[channel[missed]], charge[missed])
            pixels += len(z)
            if len(z):
                _add_runs(total, touched, z, y, given, grid, shape[1], layout.guide)
        cells = np.flatnonzero(touched)
        coords.append(
            np.stack([np.full(len(cells), x), cells // shape[1], cells % shape[1]], 1).astype(np.int32)
        )
        features.append(total[:, cells].T)
    return np.concatenate(coords), np.concatenate(features), lost, pixels


def _add_runs(
    total: np.ndarray,
    touched: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    given: np.ndarray,
    grid: Grid,
    cells_z: int,
    guide: int,
) -> None:
    """Sum each run of pixels of a column inside a coarse cell, then add it to the cell, as the kernels do."""
    starts, sums = run_sums(z, y, given, grid.dy, guide)
    cell = (y[starts] // grid.dy) * cells_z + z[starts] // grid.dz
    for p in range(len(total)):
        np.add.at(total[p], cell, sums[p])
    touched[cell] = True


def run_sums(
    z: np.ndarray, y: np.ndarray, given: np.ndarray, dy: int, guide: int, x: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and charge (P, runs) of each run of neighbouring pixels of a column inside a coarse cell.

    Pixels are sorted by z, then y; those of several slices by x before. The guide plane gives all pixels of a run
    the same charge, so that its sum is a product.
    """
    new = (np.diff(z) != 0) | (np.diff(y) != 1) | (np.diff(y // dy) != 0)
    if x is not None:
        new |= np.diff(x) != 0
    first = np.ones(min(len(z), 1), bool)
    starts = np.flatnonzero(np.concatenate([first, new]))
    run = np.cumsum(np.concatenate([first, new])) - 1
    lengths = np.bincount(run)
    sums = [
        charge[starts] * lengths if p == guide else np.bincount(run, weights=charge)
        for p, charge in enumerate(given)
    ]
    return starts, np.stack(sums)
