"""The Triton kernels: tables of neighbours from sorted keys, convolution over a table, gradient of the weights.

Convolution is an implicit matrix product: a program makes the outputs of one tile of table columns; for each kernel
offset that has a neighbour anywhere in the tile it loads the neighbours' features straight into a matrix product. The
columns of a table are sorted by which offsets they have (see launch.py), so that most tiles need few offsets. Every sum
runs over the offsets in ascending order and nothing is added atomically: results do not change from run to run.

PRECISION: of products of float32, "ieee" or "tf32". WIDEN: multiply in float32 what is narrower, for Triton's
interpreter, which knows no products of bfloat16.

Import this module on demand only: it needs triton.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def search(keys, deltas, table, n, steps, BLOCK: tl.constexpr):
    """table[k, row] = the row of keys[row] + deltas[k], where there is one; the first half of the offsets is searched.

    keys (n,) int64 sorted; deltas (K,) int64, antisymmetric: deltas[K - 1 - k] = -deltas[k], so that each pair found
    serves two entries; table (K, n) int32, -1 on entry. steps: halvings until one of n + 1 places is left. Programs:
    blocks of rows x (K // 2 + 1).
    """
    k = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < n
    wanted = tl.load(keys + rows, mask=inside, other=0) + tl.load(deltas + k)
    low = tl.zeros([BLOCK], dtype=tl.int32)
    high = low + n  # the first key that is not below the wanted one lies in [low, high]
    for _ in range(steps):
        middle = low + (high - low) // 2
        searching = inside & (low < high)
        below = tl.load(keys + middle, mask=searching, other=0) < wanted
        low = tl.where(searching & below, middle + 1, low)
        high = tl.where(searching & (below == 0), middle, high)
    there = inside & (low < n)
    found = there & (tl.load(keys + low, mask=there, other=0) == wanted)
    mirrored = 2 * (tl.num_programs(1) - 1) - k
    tl.store(table + k.to(tl.int64) * n + rows, low, mask=found)
    tl.store(table + mirrored.to(tl.int64) * n + low, rows, mask=found)


@triton.jit
def patterns(table, masks, n, N_OFFSETS: tl.constexpr, BLOCK: tl.constexpr):
    """masks[column] = a bit for each offset that has a neighbour, the first 62 of them; table (K, n) int32."""
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < n
    mask = tl.zeros([BLOCK], dtype=tl.int64)
    row = table + columns
    for _ in range(min(N_OFFSETS, 62)):
        there = tl.load(row, mask=inside, other=-1) >= 0
        mask = mask * 2 + there.to(tl.int64)
        row += n
    tl.store(masks + columns, mask, mask=inside)


@triton.jit
def occupy(
    table, lists, counts, flags, n, n_tiles, N_OFFSETS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Which offsets have neighbours in a tile of BLOCK columns; one program per tile.

    lists (n_tiles, K): these offsets, ascending, in the first counts[tile] places; flags (K, n_tiles) int8: 0 or 1.
    """
    tile = tl.program_id(0)
    columns = tile * BLOCK + tl.arange(0, BLOCK)
    inside = columns < n
    row = table + columns
    count = 0
    for k in range(N_OFFSETS):
        there = tl.max(tl.load(row, mask=inside, other=-1), axis=0) >= 0
        tl.store(lists + tile * N_OFFSETS + count, k, mask=there)
        tl.store(flags + k * n_tiles + tile, there.to(tl.int8))
        count += there.to(tl.int32)
        row += n
    tl.store(counts + tile, count)


@triton.jit
def convolve(
    out, x, weight, base, table, order, lists, counts, n_out, c_in, c_out, n_offsets,
    stride_k, stride_in, stride_out,
    HAS_BASE: tl.constexpr, ORDERED: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out[o] = base[o] + sum over offsets k of x[table[k, o]] @ weight[k].

    out, base (n_out, c_out), x (n_in, c_in), weight (K, c_in, c_out) of any strides; table (K, n_out), its column i
    stands for output row order[i]. lists (tiles, K): the offsets of each tile that have neighbours, counts (tiles,) how
    many. PARTS: blocks of BLOCK_K input channels. Programs: tiles x blocks of output channels.
    """
    tile = tl.program_id(0)
    columns = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = columns < n_out
    outputs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    count = tl.load(counts + tile)
    for step in range(count * PARTS):
        k = tl.load(lists + tile * n_offsets + step // PARTS)
        inputs = (step % PARTS) * BLOCK_K + channels
        rows = tl.load(table + k.to(tl.int64) * n_out + columns, mask=inside, other=-1)
        around = tl.load(
            x + rows.to(tl.int64)[:, None] * c_in + inputs[None, :],
            mask=(rows >= 0)[:, None] & (inputs < c_in)[None, :],
            other=0.0,
        )
        matrix = tl.load(
            weight + k * stride_k + inputs[:, None] * stride_in + outputs[None, :] * stride_out,
            mask=(inputs < c_in)[:, None] & (outputs < c_out)[None, :],
            other=0.0,
        )
        if WIDEN:
            around, matrix = around.to(tl.float32), matrix.to(tl.float32)
        total = tl.dot(around, matrix, total, input_precision=PRECISION)
    if ORDERED:
        places = tl.load(order + columns, mask=inside, other=0).to(tl.int64)
    else:
        places = columns.to(tl.int64)
    where = places[:, None] * c_out + outputs[None, :]
    written = inside[:, None] & (outputs < c_out)[None, :]
    if HAS_BASE:
        total += tl.load(base + where, mask=written, other=0.0).to(tl.float32)
    tl.store(out + where, total.to(out.dtype.element_ty), mask=written)


@triton.jit
def weight_gradient(
    partial, x, grad, table, order, lists, counts, n_out, n_tiles, c_in, c_out,
    ORDERED: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """partial[split, k] = sum over a share of the tiles of outer(x[table[k, o]], grad[o]).

    partial (splits, K, c_in, c_out) float32; x (n_in, c_in), grad (n_out, c_out); lists (K, n_tiles): the tiles that
    have neighbours at each offset, counts (K,) how many. Programs: K x splits x blocks of BLOCK_K input by BLOCK_N
    output channels.
    """
    k = tl.program_id(0)
    split = tl.program_id(1)
    n_blocks = tl.cdiv(c_out, BLOCK_N)
    inputs = tl.program_id(2) // n_blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    outputs = tl.program_id(2) % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    count = tl.load(counts + k)
    share = tl.cdiv(count, tl.num_programs(1))
    total = tl.zeros([BLOCK_K, BLOCK_N], dtype=tl.float32)
    for entry in range(split * share, tl.minimum(count, (split + 1) * share)):
        tile = tl.load(lists + k * n_tiles + entry)
        columns = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = columns < n_out
        rows = tl.load(table + k.to(tl.int64) * n_out + columns, mask=inside, other=-1)
        if ORDERED:
            places = tl.load(order + columns, mask=inside, other=0).to(tl.int64)
        else:
            places = columns.to(tl.int64)
        there = rows >= 0
        around = tl.load(
            x + rows.to(tl.int64)[:, None] * c_in + inputs[None, :],
            mask=there[:, None] & (inputs < c_in)[None, :],
            other=0.0,
        )
        slope = tl.load(
            grad + places[:, None] * c_out + outputs[None, :],
            mask=there[:, None] & (outputs < c_out)[None, :],
            other=0.0,
        )
        if WIDEN:
            around, slope = around.to(tl.float32), slope.to(tl.float32)
        total = tl.dot(tl.trans(around), slope, total, input_precision=PRECISION)
    at = (split * tl.num_programs(0) + k).to(tl.int64) * c_in * c_out
    tl.store(
        partial + at + inputs[:, None] * c_out + outputs[None, :],
        total,
        mask=(inputs < c_in)[:, None] & (outputs < c_out)[None, :],
    )
