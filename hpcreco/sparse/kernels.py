"""The numba kernels of the native backend: convolution over pairs of sites, gradient of the weights.

A kernel map is a list of pairs (output row, input row), sorted by tile of `TILE` output rows, then by kernel
offset, so that a tile's output stays in cache while all offsets are added to it and each offset's matrix is
used for many rows in a row. Pairs of tile t and offset k are `starts[t, k] : starts[t, k + 1]`; within them
every output row appears once; between tiles there may be gaps.

How many rows a kernel holds in registers was measured on AVX-512 (Zen 4, one thread at about 105 GFLOP/s at most,
float32, 2.3 million pairs): products of 16 x 16 channels 94 GFLOP/s with the weights held, 83, 79 and 66 with six,
eight and 16 output rows; of 32 x 16 channels 95 with six rows, 89 with eight; outer products of 16 x 16 channels 95
with eight rows of the sum held, 77 with eight gradient rows. torch.mm there: 69 at 16 x 16, 85 at 32 x 32, 95 at
64 x 64 channels.

The work of a tile does not depend on the thread that does it, so outputs are the same for any number of
threads; weight gradients are summed per worker over a fixed set of tiles and are the same for a fixed number
of workers.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hpcreco.compiling import compiled, inner
from hpcreco.sparse import epilogue
from hpcreco.sparse.simd import fma, load, store

TILE = 256


@compiled(parallel=True)
def convolve(
    out,
    x,
    weight,
    starts,
    pair_out,
    pair_in,
    base,
    after,
    beside,
    scale,
    shift,
    leakiness,
    sums,
    workers,
    lanes,
):
    """out[o] = base[o] + sum over pairs (o, i) of offset k of x[i] @ weight[k]; then, tile by tile, what `after` says.

    out (N_out, C_out), x (N_in, C_in), weight (K, C_in, C_out), C_out a multiple of `lanes`; base (N_out,
    C_out), or (0, C_out) for zero. after: a number of epilogue.py; ACTIVATE by scale, shift (C,) and leakiness in
    place; MOMENTS added to sums (workers, 2, C); GRADIENT_MOMENTS of out, beside (N_out, C) being what was normalised.
    """
    n_offsets, c_in, c_out = weight.shape
    n_out = out.shape[0]
    n_tiles = (n_out + TILE - 1) // TILE
    leak = x.dtype.type(leakiness)
    held = c_in == 16 and lanes * x.itemsize == 64  # 16 vectors fit into the registers of AVX-512 only
    for worker in prange(workers):
        for tile in range(worker, n_tiles, workers):
            first, last = tile * TILE, min(n_out, (tile + 1) * TILE)
            for row in range(first, last):
                for c in range(c_out):
                    out[row, c] = base[row, c] if base.shape[0] else 0
            for k in range(n_offsets):
                lo, hi, w = starts[tile, k], starts[tile, k + 1], k * c_in * c_out
                if held:
                    _add_products_of_16(out, x, weight, w, c_out, pair_out, pair_in, lo, hi, lanes)
                else:
                    _add_products(out, x, weight, w, c_in, c_out, pair_out, pair_in, lo, hi, lanes)
            if after == epilogue.ACTIVATE:
                epilogue.activate(out, scale, shift, leak, first, last)
            elif after == epilogue.MOMENTS:
                epilogue.add_moments(sums[worker], out, first, last)
            elif after == epilogue.GRADIENT_MOMENTS:
                epilogue.add_gradient_moments(sums[worker], out, beside, scale, shift, leak, first, last)


@inner
def _add_products(out, x, weight, w, c_in, c_out, pair_out, pair_in, lo, hi, lanes):
    """Add the products of one offset's pairs lo:hi; w is the position of the offset's matrix in weight.

    Six output rows live in registers and every loaded weight vector serves all of them; with more rows their
    addresses no longer fit into registers. The last group of six repeats the last pair; the repeats compute and
    store the same row, to no effect.
    """
    end = hi - 1
    for p in range(lo, hi, 6):
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
        for c in range(0, c_out, lanes):
            s0, s1, s2 = load(out, o0 + c), load(out, o1 + c), load(out, o2 + c)
            s3, s4, s5 = load(out, o3 + c), load(out, o4 + c), load(out, o5 + c)
            for j in range(c_in):
                v = load(weight, w + j * c_out + c)
                s0, s1, s2 = fma(x, i0 + j, v, s0), fma(x, i1 + j, v, s1), fma(x, i2 + j, v, s2)
                s3, s4, s5 = fma(x, i3 + j, v, s3), fma(x, i4 + j, v, s4), fma(x, i5 + j, v, s5)
            store(out, o0 + c, s0), store(out, o1 + c, s1), store(out, o2 + c, s2)
            store(out, o3 + c, s3), store(out, o4 + c, s4), store(out, o5 + c, s5)


@inner
def _add_products_of_16(out, x, weight, w, c_out, pair_out, pair_in, lo, hi, lanes):
    """The same, with the same bits, for 16 input channels: 16 weight vectors live in registers for all pairs."""
    for c in range(0, c_out, lanes):
        u = w + c
        v0, v1, v2, v3 = (
            load(weight, u + 0 * c_out),
            load(weight, u + 1 * c_out),
            load(weight, u + 2 * c_out),
            load(weight, u + 3 * c_out),
        )
        v4, v5, v6, v7 = (
            load(weight, u + 4 * c_out),
            load(weight, u + 5 * c_out),
            load(weight, u + 6 * c_out),
            load(weight, u + 7 * c_out),
        )
        v8, v9, v10, v11 = (
            load(weight, u + 8 * c_out),
            load(weight, u + 9 * c_out),
            load(weight, u + 10 * c_out),
            load(weight, u + 11 * c_out),
        )
        v12, v13, v14, v15 = (
            load(weight, u + 12 * c_out),
            load(weight, u + 13 * c_out),
            load(weight, u + 14 * c_out),
            load(weight, u + 15 * c_out),
        )
        for p in range(lo, hi):
            o, i = np.int64(pair_out[p]) * c_out + c, np.int64(pair_in[p]) * 16
            s = load(out, o)
            s = fma(x, i + 3, v3, fma(x, i + 2, v2, fma(x, i + 1, v1, fma(x, i + 0, v0, s))))
            s = fma(x, i + 7, v7, fma(x, i + 6, v6, fma(x, i + 5, v5, fma(x, i + 4, v4, s))))
            s = fma(x, i + 11, v11, fma(x, i + 10, v10, fma(x, i + 9, v9, fma(x, i + 8, v8, s))))
            s = fma(x, i + 15, v15, fma(x, i + 14, v14, fma(x, i + 13, v13, fma(x, i + 12, v12, s))))
            store(out, o, s)


@compiled(parallel=True)
def weight_gradient(total, partial, x, grad, starts, pair_out, pair_in, lanes):
    """total[k] = sum over the pairs (o, i) of offset k of outer(x[i], grad[o]).

    total (K, C_in, C_out), partial (workers - 1, K, C_in, C_out): the first worker's place and the others', whose
    sums are added in their order; x (N_in, C_in), grad (N_out, C_out), C_out a multiple of `lanes`.
    """
    n_offsets, c_in, c_out = total.shape
    workers, n_tiles = partial.shape[0] + 1, starts.shape[0]
    for worker in prange(workers):
        mine = partial[worker - 1] if worker else total
        _clear(mine)
        for tile in range(worker, n_tiles, workers):
            for k in range(n_offsets):
                lo, hi = starts[tile, k], starts[tile, k + 1]
                if lo < hi:
                    _add_outer(mine, k * c_in * c_out, x, grad, c_in, c_out, pair_out, pair_in, lo, hi, lanes)
    for k in prange(n_offsets):
        for worker in range(1, workers):
            for j in range(c_in):
                for c in range(c_out):
                    total[k, j, c] += partial[worker - 1, k, j, c]


@inner
def _clear(matrices):
    for k in range(matrices.shape[0]):
        for j in range(matrices.shape[1]):
            for c in range(matrices.shape[2]):
                matrices[k, j, c] = 0


@inner
def _add_outer(total, w, x, grad, c_in, c_out, pair_out, pair_in, lo, hi, lanes):
    """Add the outer products of one offset's pairs lo:hi to the matrix at position w of total.

    Eight rows of the matrix live in registers for all pairs, then four of what is left; the last of these may be one
    row several times over, which compute and store the same, to no effect.
    """
    for c in range(0, c_out, lanes):
        j = 0
        while j + 8 <= c_in:
            at = w + j * c_out + c
            t0, t1, t2, t3 = (
                load(total, at),
                load(total, at + c_out),
                load(total, at + 2 * c_out),
                load(total, at + 3 * c_out),
            )
            t4, t5, t6, t7 = (
                load(total, at + 4 * c_out),
                load(total, at + 5 * c_out),
                load(total, at + 6 * c_out),
                load(total, at + 7 * c_out),
            )
            for p in range(lo, hi):
                g, i = load(grad, np.int64(pair_out[p]) * c_out + c), np.int64(pair_in[p]) * c_in + j
                t0, t1, t2, t3 = (
                    fma(x, i, g, t0),
                    fma(x, i + 1, g, t1),
                    fma(x, i + 2, g, t2),
                    fma(x, i + 3, g, t3),
                )
                t4, t5, t6, t7 = (
                    fma(x, i + 4, g, t4),
                    fma(x, i + 5, g, t5),
                    fma(x, i + 6, g, t6),
                    fma(x, i + 7, g, t7),
                )
            store(total, at, t0), store(total, at + c_out, t1)
            store(total, at + 2 * c_out, t2), store(total, at + 3 * c_out, t3)
            store(total, at + 4 * c_out, t4), store(total, at + 5 * c_out, t5)
            store(total, at + 6 * c_out, t6), store(total, at + 7 * c_out, t7)
            j += 8
        while j < c_in:
            j1, j2, j3 = min(j + 1, c_in - 1), min(j + 2, c_in - 1), min(j + 3, c_in - 1)
            a0, a1, a2, a3 = (
                w + j * c_out + c,
                w + j1 * c_out + c,
                w + j2 * c_out + c,
                w + j3 * c_out + c,
            )
            t0, t1, t2, t3 = load(total, a0), load(total, a1), load(total, a2), load(total, a3)
            for p in range(lo, hi):
                g, i = load(grad, np.int64(pair_out[p]) * c_out + c), np.int64(pair_in[p]) * c_in
                t0, t1, t2, t3 = (
                    fma(x, i + j, g, t0),
                    fma(x, i + j1, g, t1),
                    fma(x, i + j2, g, t2),
                    fma(x, i + j3, g, t3),
                )
            store(total, a0, t0), store(total, a1, t1), store(total, a2, t2), store(total, a3, t3)
            j += 4
