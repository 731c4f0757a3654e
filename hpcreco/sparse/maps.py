"""Which rows a kernel joins: the pairs of input and output rows of one layer, found from sorted packed
coordinates.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.sparse import kernels, tables
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
    pairs = _neighbours(keys.numpy(), deltas)
    return TiledMap(pairs, pairs, mirrored=True)


def _neighbours(keys: np.ndarray, deltas: np.ndarray) -> TiledPairs:
    starts = np.empty((-(-len(keys) // kernels.TILE), len(deltas) + 1), np.int64)
    most = len(keys) * len(deltas)  # memory that is never written to is never taken
    pair_out, pair_in = np.empty(most, np.int32), np.empty(most, np.int32)
    launch(kernels.find_pairs, keys, deltas, starts, pair_out, pair_in, workers())
    return TiledPairs(starts, pair_out, pair_in, len(keys))


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
    parents, rows, steps = _windows(coords, kernel, stride)
    keys, coarse = torch.unique(pack(parents), return_inverse=True)
    n_offsets = kernel[0] * kernel[1] * kernel[2]
    n_in, n_out = len(coords), len(keys)
    o, i, k = coarse.numpy(), rows.numpy(), steps.numpy()
    forth, back = _tiled(o, i, k, n_offsets, n_out), _tiled(i, o, k, n_offsets, n_in)
    return keys, TiledMap(forth, back, mirrored=False)


def _tiled(
    out_rows: np.ndarray, in_rows: np.ndarray, steps: np.ndarray, n_offsets: int, n_out: int
) -> TiledPairs:
    starts, pair_out, pair_in = kernels.sort_pairs(out_rows, in_rows, steps, n_offsets, n_out)
    return TiledPairs(starts, pair_out, pair_in, n_out)


def _windows(coords: Tensor, kernel: Triple, stride: Triple) -> tuple[Tensor, Tensor, Tensor]:
    """Every (window, site in it): the window's coordinates (P, 4), the site's row (P,) and its place in the
    window (P,).
    """
    step = torch.tensor(stride, device=coords.device, dtype=coords.dtype)
    rows = torch.arange(len(coords), device=coords.device)
    if kernel == stride:  # windows tile the grid: one per site
        cell = torch.div(coords[:, 1:], step, rounding_mode="floor")
        x, y, z = (coords[:, 1:] - cell * step).long().unbind(1)
        return torch.cat([coords[:, :1], cell], 1), rows, (x * kernel[1] + y) * kernel[2] + z
    parents, chosen, places = [], [], []
    for place, offset in enumerate(offsets(kernel, centred=False)):
        corner = coords[:, 1:] - torch.as_tensor(offset, device=coords.device, dtype=coords.dtype)
        at = torch.nonzero(((corner >= 0) & (corner % step == 0)).all(1)).squeeze(1)
        parents.append(torch.cat([coords[at, :1], corner[at] // step], 1))
        chosen.append(rows[at])
        places.append(torch.full_like(at, place))
    return torch.cat(parents), torch.cat(chosen), torch.cat(places)
