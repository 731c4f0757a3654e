"""What calls the Triton kernels: the same two functions as `gathered`, and the tables that they work on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from hpcreco.sparse.gpu import kernels, tuning
from hpcreco.sparse.gpu.tuning import Blocks
from hpcreco.sparse.paths import interpreted
from hpcreco.sparse.tables import Table

SEARCHED, MASKED = 256, 256
"""Rows per program of the kernels `search` and `patterns`."""
PROGRAMS, LEAST_TILES = 1024, 8
"""The gradient of the weights is split for about so many programs, each with so many tiles at least."""


_one_at_a_time = threading.RLock() if interpreted() else nullcontext()


def try_out(device: torch.device) -> None:
    """One small kernel, waited for; raises whatever stands against Triton on this device."""
    keys = torch.arange(3, device=device)
    found = neighbours(keys, torch.tensor([-1, 0, 1], device=device)).tolist()
    if found != [[-1, 0, 1], [0, 1, 2], [1, 2, -1]]:
        raise RuntimeError(f"neighbours of 0, 1, 2 were found to be {found}")


def neighbours(keys: Tensor, deltas: Tensor) -> Tensor:
    """See tables.neighbours; deltas (K,) antisymmetric about the middle one."""
    n, n_offsets = len(keys), len(deltas)
    table = torch.full((n_offsets, n), -1, dtype=torch.int32, device=keys.device)
    if n:
        with on(keys.device):
            grid = (-(-n // SEARCHED), n_offsets // 2 + 1)
            kernels.search[grid](
                keys, deltas, table, n, n.bit_length(), BLOCK=SEARCHED, enable_fp_fusion=True
            )
    return table


def ordered(table: Table) -> Table:
    """The same table with its columns sorted by which offsets have neighbours; equal ones keep their order."""
    n_offsets, n = table.rows.shape
    if not n:
        return table
    masks = torch.empty(n, dtype=torch.int64, device=table.rows.device)
    with on(masks.device):
        kernels.patterns[(-(-n // MASKED),)](
            table.rows, masks, n, N_OFFSETS=n_offsets, BLOCK=MASKED, enable_fp_fusion=True
        )
    order = torch.argsort(masks, stable=True)
    return Table(table.rows.index_select(1, order), table.n_in, order.int())


def convolve(x: Tensor, weight: Tensor, table: Table, base: Tensor | None, dtype: torch.dtype) -> Tensor:
    """See gathered.convolve. x, base contiguous; weight of any strides."""
    c_in, c_out = x.shape[1], weight.shape[2]
    out = x.new_empty(table.n_out, c_out, dtype=dtype)
    if not out.numel():
        return out
    block_k, block_n = tuning.channels(c_in, _deepest(x)), tuning.channels(c_out)

    def run(blocks: Blocks) -> None:
        lists, counts = _offsets_of_tiles(table, blocks.rows)
        kernels.convolve[(len(counts), -(-c_out // block_n))](
            out, x, weight, out if base is None else base, table.rows, _order(table), lists, counts,
            table.n_out, c_in, c_out, len(table.rows), *weight.stride(),
            HAS_BASE=base is not None, ORDERED=table.order is not None,
            PRECISION=tuning.float32_products(), WIDEN=interpreted(),
            PARTS=-(-c_in // block_k), BLOCK_M=blocks.rows, BLOCK_N=block_n, BLOCK_K=block_k,
            num_warps=blocks.warps, num_stages=blocks.stages, enable_fp_fusion=True,
        )  # fmt: skip

    with on(x.device):
        run(tuning.choose("convolve", x, (c_in, c_out, len(table.rows)), table.n_out, run))
    return out


def weight_gradient(x: Tensor, grad: Tensor, table: Table) -> Tensor:
    """See gathered.weight_gradient. The shares of a sum depend on the numbers of rows and channels only, and are added
    in a fixed order.
    """
    n_offsets, c_in, c_out = len(table.rows), x.shape[1], grad.shape[1]
    block_k, block_n = tuning.channels(c_in, _deepest(x)), tuning.channels(c_out, 2 * _deepest(x))
    blocks_of_channels = -(-c_in // block_k) * -(-c_out // block_n)

    def run(blocks: Blocks) -> Tensor:
        lists, counts = _tiles_of_offsets(table, blocks.rows)
        n_tiles = lists.shape[1]
        splits = max(1, min(PROGRAMS // (n_offsets * blocks_of_channels), n_tiles // LEAST_TILES))
        partial = x.new_empty(splits, n_offsets, c_in, c_out, dtype=torch.float32)
        kernels.weight_gradient[(n_offsets, splits, blocks_of_channels)](
            partial, x, grad, table.rows, _order(table), lists, counts, table.n_out, n_tiles, c_in, c_out,
            ORDERED=table.order is not None,
            PRECISION=tuning.float32_products(), WIDEN=interpreted(),
            BLOCK_M=blocks.rows, BLOCK_N=block_n, BLOCK_K=block_k,
            num_warps=blocks.warps, num_stages=blocks.stages, enable_fp_fusion=True,
        )  # fmt: skip
        return partial.sum(0)

    if not table.n_out:
        return x.new_zeros(n_offsets, c_in, c_out, dtype=torch.float32)
    with on(x.device):
        return run(tuning.choose("weight_gradient", x, (c_in, c_out, n_offsets), table.n_out, run))


def _order(table: Table) -> Tensor:
    return table.rows if table.order is None else table.order  # any pointer, where none is read


def _deepest(x: Tensor) -> int:
    """Input channels of a block at most: products of float32 without tensor cores hold both factors in registers."""
    if x.element_size() <= 2:
        return 64
    return 32 if tuning.float32_products() == "tf32" else 16


def _offsets_of_tiles(table: Table, size: int) -> tuple[Tensor, Tensor]:
    """For each tile of `size` columns its offsets with neighbours first, ascending, (tiles, K) int32, and how many they
    are, (tiles,).
    """
    if ("offsets", size) not in table.tiles:
        _occupy(table, size)
    return table.tiles["offsets", size]


def _tiles_of_offsets(table: Table, size: int) -> tuple[Tensor, Tensor]:
    """For each offset the tiles with neighbours first, ascending, (K, tiles) int32, and how many these are, (K,)."""
    if ("tiles", size) not in table.tiles:
        flags = _occupy(table, size)
        first = torch.argsort(flags, dim=1, descending=True, stable=True)
        table.tiles["tiles", size] = first.int(), flags.sum(1, dtype=torch.int32)
    return table.tiles["tiles", size]


def _occupy(table: Table, size: int) -> Tensor:
    """Fills in the offsets of all tiles; returns (K, tiles) int8: 1 where a tile has a neighbour at an offset."""
    n_offsets, n = table.rows.shape
    n_tiles = -(-n // size)
    lists = table.rows.new_empty(n_tiles, n_offsets)
    counts, flags = table.rows.new_empty(n_tiles), table.rows.new_empty(n_offsets, n_tiles, dtype=torch.int8)
    kernels.occupy[(n_tiles,)](
        table.rows, lists, counts, flags, n, n_tiles, N_OFFSETS=n_offsets, BLOCK=size, enable_fp_fusion=True
    )
    table.tiles["offsets", size] = lists, counts
    return flags


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Triton launches on torch's current device, which need not be that of the data; its interpreter changes the
    language's own functions while a kernel runs, which other threads must not see.
    """
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext(), _one_at_a_time:
        yield
