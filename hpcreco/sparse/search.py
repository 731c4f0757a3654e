"""The numba kernels that find distinct cells and the pairs of neighbouring sites, by walks along sorted packed
coordinates.

How pairs are laid out: see kernels.py.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hpcreco.compiling import compiled, inner
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
def find_pairs(keys, deltas, length, starts, pair_out, pair_in, near):
    """Neighbours of each site in a sorted list of packed coordinates.

    keys (N + 1,) int64: sorted, then a last one above all that can be looked for. The kernel's offsets are runs of
    `length` cells along z; deltas (K / length,) int64: key difference of each run's first cell. Writes starts
    (tiles, K + 1) and the pairs; each worker fills the places of its tiles from the first on, K * TILE per tile being
    the most they can need. near (workers, TILE) int32: room to work in. No branch depends on whether a neighbour is
    there: that would take most of the time.
    """
    n, n_tiles, workers = keys.size - 1, starts.shape[0], near.shape[0]
    for worker in prange(workers):
        first_tile, end_tile = worker * n_tiles // workers, (worker + 1) * n_tiles // workers
        found = first_tile * TILE * deltas.size * length
        mine = near[worker]
        for tile in range(first_tile, end_tile):
            first, last = tile * TILE, min(n, (tile + 1) * TILE)
            starts[tile, 0] = found
            for run in range(deltas.size):
                delta = deltas[run]
                at = _place(keys, keys[first] + delta)
                for row in range(first, last):
                    wanted = keys[row] + delta
                    while keys[at] < wanted:
                        at += 1
                    there = keys[at] == wanted
                    pair_out[found] = row
                    pair_in[found] = at
                    found += there
                    mine[row - first] = at + there
                starts[tile, run * length + 1] = found
                for cell in range(1, length):
                    for row in range(first, last):
                        other = mine[row - first]
                        there = keys[other] == keys[row] + delta + cell
                        pair_out[found] = row
                        pair_in[found] = other
                        found += there
                        mine[row - first] = other + there
                    starts[tile, run * length + cell + 1] = found


@inner
def _place(keys, wanted):
    """The first place in sorted keys that does not hold less than wanted."""
    low, high = 0, keys.size
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def sort_pairs(
    out_rows: np.ndarray, in_rows: np.ndarray, offsets: np.ndarray, n_offsets: int, n_out: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs in any order -> (starts, pair_out, pair_in) sorted by (tile of the output row, offset). All int32 but
    starts, int64.
    """
    n_tiles = -(-n_out // TILE)
    starts = np.empty((n_tiles, n_offsets + 1), np.int64)
    pair_out, pair_in = np.empty_like(out_rows), np.empty_like(in_rows)
    place = np.zeros(n_tiles * n_offsets, np.int64)
    _sort_pairs(out_rows, in_rows, offsets, starts, pair_out, pair_in, place)
    return starts, pair_out, pair_in


@compiled()
def _sort_pairs(out_rows, in_rows, offsets, starts, pair_out, pair_in, place):
    """A counting sort; place: zeros, one for each tile and offset."""
    n_offsets = starts.shape[1] - 1
    for p in range(out_rows.size):
        place[out_rows[p] // TILE * n_offsets + offsets[p]] += 1
    end = 0
    for tile in range(starts.shape[0]):
        starts[tile, 0] = end
        for k in range(n_offsets):
            bucket = tile * n_offsets + k
            first = end
            end += place[bucket]
            place[bucket] = first
            starts[tile, k + 1] = end
    for p in range(out_rows.size):
        bucket = out_rows[p] // TILE * n_offsets + offsets[p]
        pair_out[place[bucket]] = out_rows[p]
        pair_in[place[bucket]] = in_rows[p]
        place[bucket] += 1
