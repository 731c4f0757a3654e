"""Which rows a kernel joins: the pairs of input and output rows of one layer, found from sorted packed
coordinates.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.sparse import kernels, search, tables
from hpcreco.sparse.jit import launch, workers
from hpcreco.sparse.tables import SameRows, TableMap
from hpcreco.sparse.tensor import Triple, pack


@dataclass(frozen=True)
class TiledPairs:
    """Pairs (output row, input row) for the CPU kernels, sorted by tile of the output row and kernel offset;
    see kernels.py.
    """

    starts: np.ndarray
    pair_out: np.ndarray
    pair_in: np.ndarray
    n_out: int

    @functools.cached_property
    def count(self) -> int:
        """Number of pairs."""
        return int((self.starts[:, -1] - self.starts[:, 0]).sum())


@dataclass(frozen=True)
class TiledMap:
    """The pairs of one kernel sorted by output row, and with roles exchanged by input row, for the gradient of the
    input. A submanifold map is its own exchange with the kernel offsets in opposite order (`mirrored`).
    """

    forth: TiledPairs
    back: TiledPairs
    mirrored: bool

    def exchanged(self) -> TiledMap:
        """The map of the transposed convolution."""
        return TiledMap(self.back, self.forth, self.mirrored)


SMALL = 20_000
"""Neighbours to look for, up to which one thread is faster than several."""

KernelMap = TiledMap | TableMap | SameRows


def offsets(kernel: Triple, centred: bool) -> np.ndarray:
    """(K, 3) kernel offsets in lexicographic order, around 0 or from 0 on."""
    starts = [-(size // 2) if centred else 0 for size in kernel]
    axes = [range(start, start + size) for start, size in zip(starts, kernel, strict=True)]
    return np.array(list(itertools.product(*axes)), np.int64)


def submanifold_map(keys: Tensor, kernel: Triple, path: str) -> KernelMap:
    """Pairs of sites (s, s + offset) that are both active; keys (N,) sorted packed coordinates; path: see paths.py."""
    steps = offsets(kernel, centred=True)
    deltas = (steps[:, 0] << 32) + (steps[:, 1] << 16) + steps[:, 2]
    if path != "numba":
        return tables.submanifold_map(keys, deltas, path)
    pairs = _neighbours(keys.numpy(), deltas, kernel[2])
    return TiledMap(pairs, pairs, mirrored=True)


def _neighbours(keys: np.ndarray, deltas: np.ndarray, length: int) -> TiledPairs:
    """deltas: key difference of each offset, `length` offsets in a row along z."""
    starts = np.empty((-(-len(keys) // kernels.TILE), len(deltas) + 1), np.int64)
    most = len(keys) * len(deltas)  # memory that is never written to is never taken
    pair_out, pair_in = np.empty(most, np.int32), np.empty(most, np.int32)
    keys = np.append(keys, np.iinfo(np.int64).max)
    launch(
        search.find_pairs,
        keys,
        deltas[::length].copy(),
        length,
        starts,
        pair_out,
        pair_in,
        np.empty((workers(), kernels.TILE), np.int32),
        small=most < SMALL,
    )
    return TiledPairs(starts, pair_out, pair_in, len(keys) - 1)


def strided_map(
    coords: Tensor, kernel: Triple, stride: Triple, path: str
) -> tuple[Tensor, TiledMap | TableMap]:
    """Sites of the next level and the pairs (coarse site o, fine site o * stride + offset), offset in [0,
    kernel).

    coords (N, 4) of the fine sites. A coarse site is active where its window holds an active site. Returns
    the sorted packed keys of the coarse sites and the map fine -> coarse.
    """
    if path != "numba":
        return tables.strided_map(coords, kernel, stride, offsets(kernel, centred=False), path)
    windows = _side_by_side(coords, stride) if kernel == stride else _overlapping(coords, kernel, stride)
    n_offsets = kernel[0] * kernel[1] * kernel[2]
    return torch.from_numpy(windows[0]), _tiled(*windows[1:], n_offsets, len(coords), len(windows[0]))


Windows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Sorted keys of the coarse sites; for each (window, site in it) the rows of both and the site's place in it."""


def _side_by_side(coords: Tensor, stride: Triple) -> Windows:
    """Windows that tile the grid: each site is in one."""
    cells = coords.contiguous().numpy()
    parents, places = np.empty(len(cells), np.int64), np.empty(len(cells), np.int32)
    search.windows(cells, *stride, parents, places)
    # few long ascending runs, which this sort merges
    keys, coarse = search.number(parents, np.argsort(parents, kind="stable"))
    return keys, coarse, np.arange(len(cells), dtype=np.int32), places


def _overlapping(coords: Tensor, kernel: Triple, stride: Triple) -> Windows:
    step = torch.tensor(stride, dtype=coords.dtype)
    parents, rows, places = [], [], []
    for place, offset in enumerate(offsets(kernel, centred=False)):
        corner = coords[:, 1:] - torch.as_tensor(offset, dtype=coords.dtype)
        at = torch.nonzero(((corner >= 0) & (corner % step == 0)).all(1)).squeeze(1)
        parents.append(pack(torch.cat([coords[at, :1], corner[at] // step], 1)))
        rows.append(at)
        places.append(torch.full_like(at, place))
    keys, coarse = torch.unique(torch.cat(parents), return_inverse=True)
    return keys.numpy(), *(v.int().numpy() for v in (coarse, torch.cat(rows), torch.cat(places)))


def _tiled(
    coarse: np.ndarray, fine: np.ndarray, places: np.ndarray, n_offsets: int, n_in: int, n_out: int
) -> TiledMap:
    starts, pair_out, pair_in = search.sort_pairs(coarse, fine, places, n_offsets, n_out)
    forth = TiledPairs(starts, pair_out, pair_in, n_out)
    starts, pair_out, pair_in = search.sort_pairs(fine, coarse, places, n_offsets, n_in)
    return TiledMap(forth, TiledPairs(starts, pair_out, pair_in, n_in), mirrored=False)
