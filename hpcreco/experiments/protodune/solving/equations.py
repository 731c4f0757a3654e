"""The linear equations of charge: what each channel saw in a slice is the sum of what its cells gave it.

For a slice of dx ticks, channel c saw s(c) electrons. A cell j whose charge q(j) is spread evenly over its dy x dz
pixels gives the channel A(c, j) q(j), with A the share of the cell's area inside the channel's strips (a wrapped
channel has several, of which a cell meets one as a rule). Slices share no unknown, so the equations of many
slices stand in one block-diagonal matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from hpcreco.experiments.protodune import overlap
from hpcreco.experiments.protodune.geometry import Face
from hpcreco.experiments.protodune.overlap import SHARE_UNIT


@dataclass(frozen=True)
class ChannelSums:
    """Charge per coarse slice and channel of one event: `key` = slice * n_channels + channel, ascending, unique."""

    key: np.ndarray  # int64 (n,)
    charge: np.ndarray  # float64 (n,) electrons
    n_channels: int

    def of_slices(self, first: int, last: int) -> ChannelSums:
        """Those of the slices [first, last)."""
        a, b = np.searchsorted(self.key, np.array([first, last], np.int64) * self.n_channels)
        return ChannelSums(self.key[a:b], self.charge[a:b], self.n_channels)

    def at(self, key: np.ndarray) -> np.ndarray:
        """Charge (len(key),) of these slices and channels, 0 where nothing was seen."""
        if not len(self.key):
            return np.zeros(len(key))
        at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        return np.where(self.key[at] == key, self.charge[at], 0.0)


def channel_sums(
    tick: np.ndarray, channel: np.ndarray, value: np.ndarray, dx: int, n_channels: int
) -> ChannelSums:
    """Sum samples (n,) in any order over `dx` ticks."""
    key = (np.asarray(tick, np.int64) // dx) * n_channels + np.asarray(channel, np.int64)
    found, at = np.unique(key, return_inverse=True)
    return ChannelSums(found, np.bincount(at, np.asarray(value, float), len(found)), n_channels)


@dataclass(frozen=True)
class Equations:
    """E equations for N cells; rows ascend by slice and channel, columns are the cells in their order.

    matrix : csr (E, N), area share of each cell in each channel
    charge : float64 (E,), what each channel saw [electrons]
    slices, channels : int64 (E,), which slice and channel each equation is of
    """

    matrix: sparse.csr_matrix
    charge: np.ndarray
    slices: np.ndarray
    channels: np.ndarray


def cell_shares(face: Face, cells: np.ndarray, size: Sequence[int], n_channels: int) -> sparse.csr_matrix:
    """Share (n, n_channels) of the area of each (y, z) cell, int (n, 2), in the strips of each channel.

    A cell that the edge of the face cuts counts its pixels inside only. Where a plane has no wire nothing is
    collected: the shares of such a cell sum to less than one in that plane.
    """
    n_y, n_z = face.pixels
    dy, dz = size
    iy = np.repeat(cells[:, :1] * dy + np.arange(dy), dz, axis=1)
    iz = np.tile(cells[:, 1:] * dz + np.arange(dz), (1, dy))
    inside = (iy < n_y) & (iz < n_z)
    cell, iy, iz = np.nonzero(inside)[0], iy[inside], iz[inside]
    rows, columns, parts = [], [], []
    for plane in face.planes:
        wire, exact = overlap.lower_share(plane, iz, iy)
        lower = overlap.round_share(exact).astype(np.int64)
        for strip, part in ((wire, lower), (wire + 1, SHARE_UNIT - lower)):
            seen = (strip >= 0) & (strip < plane.n_wires) & (part > 0)
            rows.append(cell[seen])
            columns.append(plane.channels[strip[seen]])
            parts.append(part[seen])
    entries = (np.concatenate(parts), (np.concatenate(rows), np.concatenate(columns)))
    shares = sparse.coo_matrix(entries, shape=(len(cells), n_channels)).tocsr().astype(float)
    shares.data /= SHARE_UNIT * np.repeat(inside.sum(axis=1), np.diff(shares.indptr))
    return shares


def equations(
    face: Face,
    cells: np.ndarray,
    sums: ChannelSums,
    size: Sequence[int],
    dead_channels: Iterable[int] = (),
) -> Equations:
    """Equations of all live channels that meet one of `cells`, int (N, 3) sorted by x; `size` is (dy, dz).

    A channel that saw nothing is an equation too; a dead one says nothing about the charge and is none.
    """
    n_channels = sums.n_channels
    places, of_cell = np.unique(cells[:, 1:], axis=0, return_inverse=True)
    shares = cell_shares(face, places, size, n_channels)[of_cell.reshape(-1)]
    column = np.repeat(np.arange(len(cells)), np.diff(shares.indptr))
    live = np.ones(n_channels, bool)
    live[list(dead_channels)] = False
    kept = live[shares.indices]
    column, share = column[kept], shares.data[kept]
    key, row = np.unique(
        cells[column, 0].astype(np.int64) * n_channels + shares.indices[kept], return_inverse=True
    )
    matrix = sparse.csr_matrix((share, (row, column)), shape=(len(key), len(cells)))
    return Equations(matrix, sums.at(key), key // n_channels, key % n_channels)
