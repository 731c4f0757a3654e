"""The numba kernels of the native backend: convolution over pairs of sites, gradient of the weights.

A kernel map is a list of pairs (output row, input row), sorted by tile of `TILE` output rows, then by kernel
offset, so that a tile's output stays in cache while all offsets are added to it and each offset's matrix is
used for many rows in a row. Pairs of tile t and offset k are `starts[t, k] : starts[t, k + 1]`; within them
every output row appears once; between tiles there may be gaps. Eight pairs are processed together: eight
output rows live in registers and every loaded weight vector serves all of them.

The work of a tile does not depend on the thread that does it, so outputs are the same for any number of
threads; weight gradients are summed per worker over a fixed set of tiles and are the same for a fixed number
of workers.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hpcreco.sparse.jit import compiled
from hpcreco.sparse.simd import fma, load, store

TILE = 256


@compiled(parallel=True)
def convolve(out, x, weight, starts, pair_out, pair_in, base, workers, lanes):
    """out[o] = base[o] + sum over pairs (o, i) of offset k of x[i] @ weight[k].

    out (N_out, C_out), x (N_in, C_in), weight (K, C_in, C_out), C_out a multiple of `lanes`; base (N_out,
    C_out), or (0, C_out) for zero.
    """
    n_offsets, c_in, c_out = weight.shape
    n_out = out.shape[0]
    n_tiles = (n_out + TILE - 1) // TILE
    for worker in prange(workers):
        for tile in range(worker, n_tiles, workers):
            for row in range(tile * TILE, min(n_out, (tile + 1) * TILE)):
                for c in range(c_out):
                    out[row, c] = base[row, c] if base.shape[0] else 0
            for k in range(n_offsets):
                lo, hi = starts[tile, k], starts[tile, k + 1]
                _add_products(out, x, weight, k * c_in * c_out, c_in, c_out, pair_out, pair_in, lo, hi, lanes)


@compiled()
def _add_products(out, x, weight, w, c_in, c_out, pair_out, pair_in, lo, hi, lanes):
    """Add the products of one offset's pairs lo:hi; w is the position of the offset's matrix in weight.

    The last group of eight repeats the last pair; the repeats compute and store the same row, to no effect.
    """
    end = hi - 1
    for p in range(lo, hi, 8):
        o0, i0 = np.int64(pair_out[p]) * c_out, np.int64(pair_in[p]) * c_in
        p1 = min(p + 1, end)
        o1, i1 = np.int64(pair_out[p1]) * c_out, np.int64(pair_in[p1]) * c_in
        p2 = min(p + 2, end)
        o2, i2 = np.int64(pair_out[p2]) * c_out, np.int64(pair_in[p2]) * c_in
        p3 = min(p + 3, end)
        o3, i3 = np.int64(pair_out[p3]) * c_out, np.int64(pair_in[p3]) * c_in
        p4 = min(p + 4, end)
        o4, i4 = np.int64(pair_out[p4]) * c_out, np.int64(pair_in[p4]) * c_in
        p5 = min(p + 5, end)
        o5, i5 = np.int64(pair_out[p5]) * c_out, np.int64(pair_in[p5]) * c_in
        p6 = min(p + 6, end)
        o6, i6 = np.int64(pair_out[p6]) * c_out, np.int64(pair_in[p6]) * c_in
        p7 = min(p + 7, end)
        o7, i7 = np.int64(pair_out[p7]) * c_out, np.int64(pair_in[p7]) * c_in
        for c in range(0, c_out, lanes):
            s0, s1, s2, s3 = load(out, o0 + c), load(out, o1 + c), load(out, o2 + c), load(out, o3 + c)
            s4, s5, s6, s7 = load(out, o4 + c), load(out, o5 + c), load(out, o6 + c), load(out, o7 + c)
            for j in range(c_in):
                v = load(weight, w + j * c_out + c)
                s0, s1, s2, s3 = (
                    fma(x, i0 + j, v, s0),
                    fma(x, i1 + j, v, s1),
                    fma(x, i2 + j, v, s2),
                    fma(x, i3 + j, v, s3),
                )
                s4, s5, s6, s7 = (
                    fma(x, i4 + j, v, s4),
                    fma(x, i5 + j, v, s5),
                    fma(x, i6 + j, v, s6),
                    fma(x, i7 + j, v, s7),
                )
            store(out, o0 + c, s0), store(out, o1 + c, s1), store(out, o2 + c, s2), store(out, o3 + c, s3)
            store(out, o4 + c, s4), store(out, o5 + c, s5), store(out, o6 + c, s6), store(out, o7 + c, s7)


@compiled(parallel=True)
def weight_gradient(partial, x, grad, starts, pair_out, pair_in, lanes):
    """partial[worker, k] = sum over the worker's pairs (o, i) of offset k of outer(x[i], grad[o]).

    partial (workers, K, C_in, C_out) zeros on entry, x (N_in, C_in), grad (N_out, C_out), C_out a multiple
    of `lanes`.
    """
    workers, n_offsets, c_in, c_out = partial.shape
    n_tiles = starts.shape[0]
    for worker in prange(workers):
        total = partial[worker]
        for tile in range(worker, n_tiles, workers):
            for k in range(n_offsets):
                lo, hi = starts[tile, k], starts[tile, k + 1]
                _add_outer(total, k * c_in * c_out, x, grad, c_in, c_out, pair_out, pair_in, lo, hi, lanes)


@compiled()
def _add_outer(total, w, x, grad, c_in, c_out, pair_out, pair_in, lo, hi, lanes):
    """Add the outer products of one offset's pairs lo:hi to the matrix at position w of total."""
    p = lo
    while p + 8 <= hi:
        o0, i0 = np.int64(pair_out[p]) * c_out, np.int64(pair_in[p]) * c_in
        o1, i1 = np.int64(pair_out[p + 1]) * c_out, np.int64(pair_in[p + 1]) * c_in
        o2, i2 = np.int64(pair_out[p + 2]) * c_out, np.int64(pair_in[p + 2]) * c_in
        o3, i3 = np.int64(pair_out[p + 3]) * c_out, np.int64(pair_in[p + 3]) * c_in
        o4, i4 = np.int64(pair_out[p + 4]) * c_out, np.int64(pair_in[p + 4]) * c_in
        o5, i5 = np.int64(pair_out[p + 5]) * c_out, np.int64(pair_in[p + 5]) * c_in
        o6, i6 = np.int64(pair_out[p + 6]) * c_out, np.int64(pair_in[p + 6]) * c_in
        o7, i7 = np.int64(pair_out[p + 7]) * c_out, np.int64(pair_in[p + 7]) * c_in
        for c in range(0, c_out, lanes):
            g0, g1, g2, g3 = load(grad, o0 + c), load(grad, o1 + c), load(grad, o2 + c), load(grad, o3 + c)
            g4, g5, g6, g7 = load(grad, o4 + c), load(grad, o5 + c), load(grad, o6 + c), load(grad, o7 + c)
            for j in range(c_in):
                v = load(total, w + j * c_out + c)
                v = fma(x, i3 + j, g3, fma(x, i2 + j, g2, fma(x, i1 + j, g1, fma(x, i0 + j, g0, v))))
                v = fma(x, i7 + j, g7, fma(x, i6 + j, g6, fma(x, i5 + j, g5, fma(x, i4 + j, g4, v))))
                store(total, w + j * c_out + c, v)
        p += 8
    while p < hi:
        o, i = np.int64(pair_out[p]) * c_out, np.int64(pair_in[p]) * c_in
        for c in range(0, c_out, lanes):
            g = load(grad, o + c)
            for j in range(c_in):
                store(total, w + j * c_out + c, fma(x, i + j, g, load(total, w + j * c_out + c)))
        p += 1
