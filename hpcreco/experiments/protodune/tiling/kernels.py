"""The compiled tiling of an event: slice by slice, runs of candidates are found, weighed and shared out.

No fine pixel is stored or even visited: charge goes straight into the coarse cells. Loops work on flat arrays
with unsigned indices, and functions are called once per slice: calls with this many arrays cost more than a run.
"""

from __future__ import annotations

import numpy as np

from hpcreco.compiling import compiled, inner
from hpcreco.experiments.protodune.tiling.chunks import Chunks, take
from hpcreco.experiments.protodune.tiling.cuts import Cuts, share_out, weigh
from hpcreco.experiments.protodune.tiling.exact import units
from hpcreco.experiments.protodune.tiling.layout import WORD, Grid, Layout, Slices
from hpcreco.experiments.protodune.tiling.runs import slice_runs
from hpcreco.experiments.protodune.tiling.scratch import ONE, Scratch, room


@inner
def light(layout: Layout, slices: Slices, grid: Grid, tick: int, work: Scratch) -> bool:
    """Flag the active strips and sum the charge of every plane; False if the slice cannot hold a candidate."""
    any_active = False
    for p in range(len(work.size)):
        work.size[p] = work.largest[p] = 0.0
    for i in range(slices.offsets[tick], slices.offsets[tick + 1]):
        c, q = np.uint32(slices.channel[i]), slices.value[i]
        p = layout.plane_of[c]
        if p >= 0:
            work.size[p] += abs(q)
            if q > grid.threshold:
                any_active = True
                for k in range(layout.first_strip[c], layout.first_strip[c + ONE]):
                    work.lit[p, layout.strip_of[k]] = 1
    return any_active or grid.glows


@inner
def group(layout: Layout, work: Scratch) -> None:
    """List the groups of neighbouring active strips of every plane, and put the flags back."""
    for p in range(len(work.n_groups)):
        n = 0
        for word in range(work.words.shape[1]):
            if work.words[p, word] == 0:
                continue
            for s in range(word * WORD, (word + 1) * WORD):
                if work.lit[p, s]:
                    work.lit[p, s] = layout.always[p, s]
                    if n == 0 or work.groups[p, n - 1, 1] != s - 1:
                        work.groups[p, n, 0] = s
                        n += 1
                    work.groups[p, n - 1, 1] = s
        work.n_groups[p] = n


@inner
def touched(layout: Layout, work: Scratch) -> None:
    """List the strips that a candidate can touch: those of the groups, and one more on either side."""
    for q in range(len(work.n_touched)):
        p, n, end = np.uint64(q), np.uint64(0), 0
        for g in range(work.n_groups[p]):
            begin, end = max(work.groups[p, g, 0] - 1, end), work.groups[p, g, 1] + 2
            for s in range(begin, end):
                work.touched[p, n] = s
                n += ONE
        work.n_touched[p] = n


@inner
def ratios(layout: Layout, slices: Slices, grid: Grid, tick: int, work: Scratch, lost: np.ndarray) -> None:
    """Charge per thousandth of a pixel of each strip; that of active channels without a candidate is lost."""
    touched(layout, work)
    weight, charge, channel = work.weight, work.charge, layout.channel
    for q in range(len(work.n_touched)):
        p = np.uint64(q)
        for i in range(work.n_touched[p]):
            s = np.uint64(work.touched[p, i])
            weight[channel[p, s]] += work.strip_weight[p, s]
            work.strip_weight[p, s] = 0
    weight[np.uint64(len(weight) - 1)] = 0  # NONE
    for i in range(slices.offsets[tick], slices.offsets[tick + 1]):
        c, q = np.uint64(slices.channel[i]), slices.value[i]
        p = layout.plane_of[c]
        if weight[c] > 0:
            charge[c] = q / weight[c]
            work.largest[p] = max(work.largest[p], abs(charge[c]))
        elif q > grid.threshold and p >= 0:
            lost[tick, p] += q
    for q in range(len(work.n_touched)):
        p = np.uint64(q)
        work.units[p] = units(work.size[p], work.largest[p])
        for i in range(work.n_touched[p]):
            s = np.uint64(work.touched[p, i])
            work.strip_ratio[p, s] = np.int64(np.rint(charge[channel[p, s]] * work.units[p]))
    for q in range(len(work.n_touched)):
        p = np.uint64(q)
        for i in range(work.n_touched[p]):
            c = channel[p, np.uint64(work.touched[p, i])]
            weight[c], charge[c] = 0, 0.0


@inner
def locate(
    layout: Layout, grid: Grid, runs: np.ndarray, n: int, n_cells: int, work: Scratch, where: np.ndarray
) -> tuple[int, np.ndarray]:
    """List the coarse cells of n runs in `where` by their places; new ones follow the n_cells there are."""
    dy, dz = np.uint64(grid.dy), np.uint64(grid.dz)
    cells_z = (np.uint64(layout.strip.shape[1]) + dz - ONE) // dz
    slot, m = work.slot, np.uint64(0)
    for i in range(n):
        run = np.uint64(i)
        row, last = np.uint64(runs[run, 1]) // dy, np.uint64(runs[run, 2] - 1) // dy
        z = np.uint64(runs[run, 0]) // dz
        cell = row * cells_z + z
        if m + last - row >= len(where):
            where = room(where, m + last - row + ONE)
        while row <= last:
            if slot[cell] < 0:
                new = np.uint64(n_cells)
                slot[cell], work.cells[0, new], work.cells[1, new] = n_cells, row, z
                for p in range(len(work.sums)):
                    work.sums[p, new], work.total[p, new] = 0, 0.0
                n_cells += 1
            where[m] = slot[cell]
            cell, row, m = cell + cells_z, row + ONE, m + ONE
    return n_cells, where


@inner
def add_slice(n_cells: int, work: Scratch) -> None:
    """Add the units of one slice to the charge of the cells."""
    for p in range(len(work.sums)):
        sums, total, electrons = work.sums[p], work.total[p], 1.0 / work.units[p]
        for i in range(n_cells):
            total[i] += sums[i] * electrons
            sums[i] = 0


@inner
def sort_cells(n_cells: int, work: Scratch) -> None:
    """Order the cells of a coarse slice by z, then by y: counted, not compared, as there are few of either."""
    begin, n = work.begin, np.uint64(n_cells)
    for axis in range(1, -1, -1):
        at, before, after = work.cells[axis], work.order[1], work.order[axis]
        begin[:] = 0
        for i in range(n):
            begin[at[i] + ONE] += ONE
        for k in range(1, len(begin)):
            begin[k] += begin[k - 1]
        for k in range(n):
            i = before[k] if axis == 0 else np.uint32(k)
            after[begin[at[i]]] = i
            begin[at[i]] += ONE


@inner
def write_rows(
    x: int, cells_z: int, n_cells: int, work: Scratch, coords: np.ndarray, charges: np.ndarray
) -> None:
    """Write the cells of a coarse slice in ascending order, and forget them."""
    sort_cells(n_cells, work)
    for row in range(n_cells):
        cell = work.order[0, row]
        y, z = work.cells[0, cell], work.cells[1, cell]
        coords[row, 0], coords[row, 1], coords[row, 2] = x, y, z
        for p in range(len(work.total)):
            charges[row, p] = work.total[p, cell]
        work.slot[y * np.uint64(cells_z) + z] = -1


@compiled()
def tile(
    layout: Layout,
    cut: Cuts,
    slices: Slices,
    grid: Grid,
    work: Scratch,
    chunks: Chunks,
    worker: int,
    lost: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Tile chunks until none is left: coords int32 (n, 3), charges float64 (n, P), number of fine candidates.

    Writes to `chunks` which of these rows are those of which chunk, and adds the charge lost to `lost` (n_ticks, P).
    """
    n_planes, n_z = layout.strip.shape[:2]
    cells_z = (n_z + grid.dz - 1) // grid.dz
    runs, boxes = np.empty((64, 3), np.int32), np.empty((2, 64, 2 + 2 * n_planes), np.int32)
    where = np.empty(64, np.int64)
    coords, charges = np.empty((1024, 3), np.int32), np.empty((1024, n_planes))
    n_rows = pixels = np.int64(0)  # of this type from the start: literals would be compiled for too
    chunk = take(chunks.taken)
    while chunk < len(chunks.rows):
        chunks.rows[chunk, 0], chunks.rows[chunk, 1] = worker, n_rows
        for x in range(chunks.edges[chunk], chunks.edges[chunk + 1]):
            n_cells = np.int64(0)
            for tick in range(x * grid.dx, (x + 1) * grid.dx):
                if not light(layout, slices, grid, tick, work):
                    continue
                group(layout, work)
                n, runs, boxes = slice_runs(layout, work, runs, boxes)
                weigh(layout, cut, runs, n, work.strip_weight)
                ratios(layout, slices, grid, tick, work, lost)
                n_cells, where = locate(layout, grid, runs, n, n_cells, work, where)
                share_out(layout, cut, np.uint64(grid.dy), runs, n, where, work.strip_ratio, work.sums)
                add_slice(n_cells, work)
                for i in range(n):
                    pixels += runs[i, 2] - runs[i, 1]
            end_row = n_rows + n_cells
            if end_row > len(coords):
                coords, charges = room(coords, end_row), room(charges, end_row)
            write_rows(x, cells_z, n_cells, work, coords[n_rows:end_row], charges[n_rows:end_row])
            n_rows = end_row
        chunks.rows[chunk, 2] = n_rows
        chunk = take(chunks.taken)
    return coords[:n_rows], charges[:n_rows], pixels
