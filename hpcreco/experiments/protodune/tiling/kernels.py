"""The interval algorithm, compiled: two passes over an event, `count` sizes the output, `fill` writes it.

In a slice only the columns touched by an active collection strip are looked at; in such a column every
active strip of another plane is one interval of y; the merged intervals of the planes are intersected, and
what is left are runs of candidate pixels. No fine pixel is stored: runs are shared out straight into the
coarse cells. Worker w of n takes coarse slices w, w + n, ..., each written to its own rows, so the result
does not depend on the number of workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcreco.experiments.protodune.overlap import SHARE_UNIT
from hpcreco.experiments.protodune.tiling.compiled import compiled
from hpcreco.experiments.protodune.tiling.layout import Grid, Layout, Slices

ONE = np.uint16(1)  # unsigned indices spare the compiled loops the test for negative ones


class Scratch(NamedTuple):
    """Work space of one worker."""

    lit: np.ndarray  # bool (P, S)
    groups: np.ndarray  # int32 (P, S, 2), first and last of neighbouring active strips, ascending
    n_groups: np.ndarray  # int32 (P,)
    runs: np.ndarray  # int32 (3, S + 1, 2): current runs, those of one plane, their intersection
    slot: np.ndarray  # int32 (coarse y * coarse z,), position of a touched cell, -1 if untouched


@compiled
def scratch(layout: Layout, grid: Grid) -> Scratch:
    """Allocate the work space of one worker, no cell touched."""
    n_planes, n_z, n_strips = layout.span.shape[:3]
    n_y = layout.strip.shape[2]
    n_cells = ((n_y + grid.dy - 1) // grid.dy) * ((n_z + grid.dz - 1) // grid.dz)
    return Scratch(
        np.zeros((n_planes, n_strips), np.bool_),
        np.zeros((n_planes, n_strips, 2), np.int32),
        np.zeros(n_planes, np.int32),
        np.zeros((3, n_strips + 1, 2), np.int32),
        np.full(n_cells, -1, np.int32),
    )


@compiled
def light(layout: Layout, slices: Slices, grid: Grid, tick: int, work: Scratch) -> bool:
    """List the groups of active strips of every plane; False when the slice cannot hold a candidate."""
    any_active = False
    for i in range(slices.offsets[tick], slices.offsets[tick + 1]):
        if slices.value[i] > grid.threshold:
            c = slices.channel[i]
            p = layout.plane_of[c]
            if p >= 0:
                any_active = True
                for k in range(layout.first_strip[c], layout.first_strip[c + 1]):
                    work.lit[p, layout.strip_of[k]] = True
    if not (any_active or grid.glows):
        return False
    for p in range(layout.always.shape[0]):
        n = 0
        for s in range(layout.always.shape[1]):
            if work.lit[p, s] or layout.always[p, s]:
                work.lit[p, s] = False
                if layout.columns[p, s, 1] == 0:
                    continue
                if n == 0 or work.groups[p, n - 1, 1] != s - 1:
                    work.groups[p, n, 0] = s
                    n += 1
                work.groups[p, n - 1, 1] = s
        work.n_groups[p] = n
    return True


@compiled
def merge(layout: Layout, p: int, column: int, work: Scratch) -> int:
    """Runs of y in `column` touched by the active strips of plane p, into runs[1]; returns their number.

    The pixels of neighbouring strips touch or overlap, so that a group of strips is one run.
    """
    n = 0
    last_group = work.n_groups[p] - 1
    for i in range(last_group + 1):
        group = last_group - i if layout.descending[p] else i
        first = max(work.groups[p, group, 0], layout.strips[p, column, 0])
        last = min(work.groups[p, group, 1], layout.strips[p, column, 1])
        if first > last:
            continue
        if layout.descending[p]:
            first, last = last, first
        low, high = layout.span[p, column, first, 0], layout.span[p, column, last, 1]
        if n > 0 and low <= work.runs[1, n - 1, 1]:
            work.runs[1, n - 1, 1] = max(high, work.runs[1, n - 1, 1])
        else:
            work.runs[1, n, 0], work.runs[1, n, 1] = low, high
            n += 1
    return n


@compiled
def intersect(runs: np.ndarray, n: int, m: int, now: int, out: int) -> int:
    """Intersect the first n runs of runs[now] with the first m of runs[1] into runs[out]; their number."""
    i = j = k = 0
    while i < n and j < m:
        low = max(runs[now, i, 0], runs[1, j, 0])
        high = min(runs[now, i, 1], runs[1, j, 1])
        if high > low:
            runs[out, k, 0], runs[out, k, 1] = low, high
            k += 1
        if runs[now, i, 1] < runs[1, j, 1]:
            i += 1
        else:
            j += 1
    return k


@compiled
def candidates(layout: Layout, column: int, work: Scratch) -> tuple[int, int]:
    """Find the runs of candidates in a column that the guide plane lights: their number and place in runs."""
    now, n = 0, 1
    work.runs[0, 0, 0], work.runs[0, 0, 1] = 0, layout.strip.shape[2]
    for p in range(layout.always.shape[0]):
        if p != layout.guide:
            m = merge(layout, p, column, work)
            n = intersect(work.runs, n, m, now, 2 - now)
            now = 2 - now
            if n == 0:
                break
    return n, now


@compiled
def column_ranges(layout: Layout, work: Scratch, ranges: np.ndarray) -> int:
    """List the ascending column ranges lit by the guide plane, all columns without one; their number."""
    if layout.guide < 0:
        ranges[0, 0], ranges[0, 1] = 0, layout.strip.shape[1]
        return 1
    n, end = 0, 0
    for i in range(work.n_groups[layout.guide]):
        first, last = work.groups[layout.guide, i, 0], work.groups[layout.guide, i, 1]
        low, high = max(layout.columns[layout.guide, first, 0], end), layout.columns[layout.guide, last, 1]
        if high > low:
            ranges[n, 0], ranges[n, 1] = low, high
            n, end = n + 1, high
    return n


@compiled
def count(
    layout: Layout,
    slices: Slices,
    grid: Grid,
    worker: int,
    workers: int,
    cells: np.ndarray,
    runs: np.ndarray,
    pixels: np.ndarray,
) -> None:
    """Candidate cells per coarse slice, runs and fine pixels per tick, for this worker's slices."""
    work = scratch(layout, grid)
    ranges = np.zeros((layout.always.shape[1] + 1, 2), np.int32)
    n_z = layout.strip.shape[1]
    cells_z = (n_z + grid.dz - 1) // grid.dz
    for x in range(worker, len(cells), workers):
        for tick in range(x * grid.dx, (x + 1) * grid.dx):
            if not light(layout, slices, grid, tick, work):
                continue
            for r in range(column_ranges(layout, work, ranges)):
                for column in range(ranges[r, 0], ranges[r, 1]):
                    n, now = candidates(layout, column, work)
                    runs[tick] += n
                    for i in range(n):
                        low, high = work.runs[now, i, 0], work.runs[now, i, 1]
                        pixels[tick] += high - low
                        for y in range(low // grid.dy, (high - 1) // grid.dy + 1):
                            cell = y * cells_z + column // grid.dz
                            if work.slot[cell] != x:
                                work.slot[cell] = x
                                cells[x] += 1


@compiled
def weigh(layout: Layout, column: int, low: int, high: int, weight: np.ndarray) -> None:
    """Add the shares of a run of candidates to the total of every channel it touches."""
    for p in range(layout.always.shape[0]):
        strips, shares, channel = layout.strip[p, column], layout.share[p, column], layout.channel[p]
        if p == layout.guide:  # the same in the whole column
            s, a = strips[low], np.int64(shares[low])
            weight[channel[s]] += a * (high - low)
            weight[channel[s + ONE]] += (SHARE_UNIT - a) * (high - low)
            continue
        for y in range(low, high):
            s, a = strips[y], np.int64(shares[y])
            weight[channel[s]] += a
            weight[channel[s + ONE]] += SHARE_UNIT - a


@compiled
def share_out(
    layout: Layout,
    grid: Grid,
    column: int,
    low: int,
    high: int,
    ratio: np.ndarray,
    slots: np.ndarray,
    total: np.ndarray,
) -> None:
    """Add the charge of a run to its coarse cells, `slots` by row; ratio is charge per thousandth of a pixel."""
    for p in range(layout.always.shape[0]):
        strips, shares, channel = layout.strip[p, column], layout.share[p, column], layout.channel[p]
        s, a = strips[low], np.int64(shares[low])
        whole = ratio[channel[s]] * a + ratio[channel[s + ONE]] * (SHARE_UNIT - a)
        start = low
        while start < high:
            row = start // grid.dy
            end = min(high, (row + 1) * grid.dy)
            part = 0.0
            if p == layout.guide:  # the same in the whole column
                part = whole * (end - start)
            else:
                for y in range(start, end):
                    s, a = strips[y], np.int64(shares[y])
                    part += ratio[channel[s]] * a + ratio[channel[s + ONE]] * (SHARE_UNIT - a)
            total[slots[row], p] += part
            start = end


@compiled
def ratios(
    layout: Layout,
    slices: Slices,
    grid: Grid,
    tick: int,
    weight: np.ndarray,
    ratio: np.ndarray,
    lost: np.ndarray,
) -> None:
    """Charge per thousandth of a pixel of each channel; that of active ones without a candidate is lost."""
    for i in range(slices.offsets[tick], slices.offsets[tick + 1]):
        c, q = slices.channel[i], slices.value[i]
        if weight[c] > 0:
            ratio[c] = q / weight[c]
        elif q > grid.threshold and layout.plane_of[c] >= 0:
            lost[tick, layout.plane_of[c]] += q


@compiled
def weighed_runs(
    layout: Layout,
    slices: Slices,
    grid: Grid,
    tick: int,
    work: Scratch,
    ranges: np.ndarray,
    found: np.ndarray,
    weight: np.ndarray,
) -> int:
    """List the runs (column, low, high) of a slice and the share of every channel in them; their number."""
    n_found = 0
    weight[:] = 0
    light(layout, slices, grid, tick, work)
    for r in range(column_ranges(layout, work, ranges)):
        for column in range(ranges[r, 0], ranges[r, 1]):
            n, now = candidates(layout, column, work)
            for i in range(n):
                low, high = work.runs[now, i, 0], work.runs[now, i, 1]
                weigh(layout, column, low, high, weight)
                found[n_found, 0], found[n_found, 1], found[n_found, 2] = column, low, high
                n_found += 1
    weight[len(weight) - 1] = 0  # NONE
    return n_found


@compiled
def write_rows(
    x: int,
    row: int,
    cells_z: int,
    cells: np.ndarray,
    total: np.ndarray,
    coords: np.ndarray,
    features: np.ndarray,
    slot: np.ndarray,
) -> None:
    """Write the cells of a coarse slice in ascending order from `row` on, and forget their slots."""
    order = np.argsort(cells)
    for i in range(len(cells)):
        cell = cells[order[i]]
        coords[row + i, 0], coords[row + i, 1], coords[row + i, 2] = x, cell // cells_z, cell % cells_z
        features[row + i] = total[order[i]]
        slot[cell] = -1


@compiled
def fill(
    layout: Layout,
    slices: Slices,
    grid: Grid,
    worker: int,
    workers: int,
    first_row: np.ndarray,
    runs_per_tick: np.ndarray,
    coords: np.ndarray,
    features: np.ndarray,
    lost: np.ndarray,
) -> None:
    """Write rows first_row[x] to first_row[x + 1] of this worker's coarse slices, and the charge lost."""
    work = scratch(layout, grid)
    cells_z = (layout.strip.shape[1] + grid.dz - 1) // grid.dz
    ranges = np.zeros((layout.always.shape[1] + 1, 2), np.int32)
    found = np.zeros((runs_per_tick.max(), 3), np.int32)
    most = (first_row[1:] - first_row[:-1]).max()
    cells, total = np.zeros(most, np.int64), np.zeros((most, len(layout.always)))
    n_channels = len(layout.plane_of)
    weight, ratio = np.zeros(n_channels + 1, np.int64), np.zeros(n_channels + 1)
    for x in range(worker, len(first_row) - 1, workers):
        n_cells = 0
        for tick in range(x * grid.dx, (x + 1) * grid.dx):
            n_found = 0
            weight[:] = 0
            if runs_per_tick[tick] > 0:
                n_found = weighed_runs(layout, slices, grid, tick, work, ranges, found, weight)
            ratio[:] = 0
            ratios(layout, slices, grid, tick, weight, ratio, lost)
            for i in range(n_found):
                column, low, high = found[i, 0], found[i, 1], found[i, 2]
                for y in range(low // grid.dy, (high - 1) // grid.dy + 1):
                    cell = y * cells_z + column // grid.dz
                    if work.slot[cell] < 0:
                        work.slot[cell], cells[n_cells], total[n_cells] = n_cells, cell, 0.0
                        n_cells += 1
                slots = work.slot[column // grid.dz :: cells_z]
                share_out(layout, grid, column, low, high, ratio, slots, total)
        write_rows(x, first_row[x], cells_z, cells[:n_cells], total, coords, features, work.slot)
