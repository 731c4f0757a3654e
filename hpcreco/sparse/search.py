"""The numba kernels that find distinct cells and the pairs of neighbouring sites, by walks along sorted packed
coordinates.

How pairs are laid out: see kernels.py.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hpcreco.sparse.jit import compiled
from hpcreco.sparse.kernels import TILE


def pack(coords: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Packed keys (N,) of coords (N, 4) int64, the lowest and the highest value of each column, and whether every key
    is greater than the one before.
    """
    keys, low, high = np.empty(len(coords), np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    return keys, low, high, _pack(coords, keys, low, high)


@compiled()
def _pack(coords, keys, low, high):
    n = coords.shape[0]
    ascending = True
    for axis in range(4):
        low[axis] = high[axis] = coords[0, axis] if n else 0
    for row in range(n):
        key = np.int64(0)
        for axis in range(4):
            value = coords[row, axis]
            low[axis], high[axis] = min(low[axis], value), max(high[axis], value)
            key = (key << 16) + value
        ascending &= row == 0 or keys[row - 1] < key
        keys[row] = key
    return ascending


def number(keys: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys (N,) and the order that sorts them -> the distinct ones, ascending, and each key's place there, int32."""
    distinct, place = np.empty_like(keys), np.empty(len(keys), np.int32)
    return distinct[: _number(keys, order, distinct, place)], place


@compiled()
def _number(keys, order, distinct, place):
    n = 0
    for row in order:
        if n == 0 or distinct[n - 1] != keys[row]:
            distinct[n] = keys[row]
            n += 1
        place[row] = n - 1
    return n


@compiled()
def windows(coords, sx, sy, sz, parents, places):
    """For windows of (sx, sy, sz) cells side by side: the packed window of each site and the site's place in it.

    coords (N, 4) int32; writes parents (N,) int64, places (N,) int32, places in lexicographic order.
    """
    for row in range(coords.shape[0]):
        x, y, z = coords[row, 1] // sx, coords[row, 2] // sy, coords[row, 3] // sz
        parents[row] = (np.int64(coords[row, 0]) << 48) + (np.int64(x) << 32) + (np.int64(y) << 16) + z
        places[row] = (
            ((coords[row, 1] - x * sx) * sy + coords[row, 2] - y * sy) * sz + coords[row, 3] - z * sz
        )


@compiled(parallel=True)
def find_pairs(keys, deltas, length, starts, pair_out, pair_in, workers):
    """Neighbours of each site in a sorted list of packed coordinates.

    keys (N + 1,) int64: sorted, then a last one above all that can be looked for. The kernel's offsets are runs of
    `length` cells along z; deltas (K / length,) int64: key difference of each run's first cell. Writes starts
    (tiles, K + 1) and the pairs; each worker fills the places of its tiles from the first on, K * TILE per tile being
    the most they can need. No branch depends on whether a neighbour is there: that would take most of the time.
    """
    n, n_tiles = keys.size - 1, starts.shape[0]
    for worker in prange(workers):
        first_tile, end_tile = worker * n_tiles // workers, (worker + 1) * n_tiles // workers
        found = first_tile * TILE * deltas.size * length
        near = np.empty(TILE, np.int32)
        for tile in range(first_tile, end_tile):
            first, last = tile * TILE, min(n, (tile + 1) * TILE)
            starts[tile, 0] = found
            for run in range(deltas.size):
                delta = deltas[run]
                at = np.searchsorted(keys, keys[first] + delta)
                for row in range(first, last):
                    wanted = keys[row] + delta
                    while keys[at] < wanted:
                        at += 1
                    there = keys[at] == wanted
                    pair_out[found] = row
                    pair_in[found] = at
                    found += there
                    near[row - first] = at + there
                starts[tile, run * length + 1] = found
                for cell in range(1, length):
                    for row in range(first, last):
                        other = near[row - first]
                        there = keys[other] == keys[row] + delta + cell
                        pair_out[found] = row
                        pair_in[found] = other
                        found += there
                        near[row - first] = other + there
                    starts[tile, run * length + cell + 1] = found


@compiled()
def sort_pairs(out_rows, in_rows, offsets, n_offsets, n_out):
    """Pairs in any order -> (starts, pair_out, pair_in) sorted by (tile of the output row, offset); a
    counting sort. All int32 but starts, int64.
    """
    n_tiles = (n_out + TILE - 1) // TILE
    count = np.zeros(n_tiles * n_offsets + 1, np.int64)
    for p in range(out_rows.size):
        count[out_rows[p] // TILE * n_offsets + offsets[p] + 1] += 1
    place = np.cumsum(count)
    starts = np.empty((n_tiles, n_offsets + 1), np.int64)
    for tile in range(n_tiles):
        starts[tile] = place[tile * n_offsets : (tile + 1) * n_offsets + 1]
    pair_out = np.empty(out_rows.size, np.int32)
    pair_in = np.empty(out_rows.size, np.int32)
    for p in range(out_rows.size):
        bucket = out_rows[p] // TILE * n_offsets + offsets[p]
        pair_out[place[bucket]] = out_rows[p]
        pair_in[place[bucket]] = in_rows[p]
        place[bucket] += 1
    return starts, pair_out, pair_in
