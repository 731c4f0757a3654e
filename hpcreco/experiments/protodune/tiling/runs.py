"""Candidates of a slice as runs of pixels: the lit strips of the planes, intersected.

Only the columns that an active collection strip touches are looked at. Neighbouring active strips of another
plane form a group, which in every column is one interval of y; groups of one plane never share a pixel, because
a pixel meets two neighbouring strips only. So the candidates of a range of columns are the combinations of one
group per plane: found by their outlines over the whole range, then cut column by column.
"""

from __future__ import annotations

import numpy as np

from hpcreco.compiling import inner
from hpcreco.experiments.protodune.tiling.layout import Layout
from hpcreco.experiments.protodune.tiling.scratch import ONE, Scratch, room

COLUMNS = 16  # columns whose combinations are looked for together: more share the search, fewer have narrow outlines


@inner
def outlines(layout: Layout, p: int, low_z: int, last_z: int, work: Scratch) -> None:
    """The y range of each group of plane p over columns low_z to last_z; span ends rise or fall along z."""
    span, groups, outline = layout.span[p], work.groups[p], work.outline
    for i in range(work.n_groups[p]):
        g = np.uint64(i)
        first, last = np.uint64(groups[g, 0]), np.uint64(groups[g, 1])
        outline[g, 0] = min(span[first, low_z, 0], span[first, last_z, 0])
        outline[g, 1] = max(span[last, low_z, 1], span[last, last_z, 1])


@inner
def combine(layout: Layout, low_z: int, last_z: int, work: Scratch, boxes: np.ndarray) -> tuple[int, int]:
    """Combinations of one group per tilted plane whose outlines over columns low_z to last_z overlap.

    A box is its outline's y range, then first and last strip in each plane. Returns their number and which of the
    two lists in boxes (2, room, 2 + 2 P) they are; a number beyond the room asks for more of it.
    """
    n, now = 1, 0
    boxes[0, 0, 0], boxes[0, 0, 1] = 0, layout.strip.shape[2]
    outline, groups = work.outline, work.groups
    for p in range(len(work.n_groups)):
        if p == layout.guide:
            continue
        outlines(layout, p, low_z, last_z, work)
        n_groups, field = np.uint64(work.n_groups[p]), np.uint64(2 + 2 * p)
        old, new = boxes[now], boxes[1 - now]
        m, begin, before = 0, np.uint64(0), np.int32(0)
        for i in range(n):
            box = np.uint64(i)
            low, high = old[box, 0], old[box, 1]
            if low < before:  # boxes of two planes need not ascend
                begin = np.uint64(0)
            before = low
            while begin < n_groups and outline[begin, 1] <= low:
                begin += ONE
            g = begin
            while g < n_groups and outline[g, 0] < high:
                if m < len(new):
                    at = np.uint64(m)
                    for f in range(2, 2 + 2 * p):
                        new[at, f] = old[box, f]
                    new[at, 0], new[at, 1] = max(low, outline[g, 0]), min(high, outline[g, 1])
                    new[at, field], new[at, field + ONE] = groups[p, g, 0], groups[p, g, 1]
                m += 1
                g += ONE
        if m > len(new):
            return m, now
        n, now = m, 1 - now
    return n, now


@inner
def cut_boxes(
    layout: Layout, low_z: int, last_z: int, boxes: np.ndarray, n_boxes: int, runs: np.ndarray, n: int
) -> int:
    """Append the runs (column, low, high) of the boxes' candidates to the n in `runs`; their number."""
    span = layout.span
    for i in range(n_boxes):
        box = np.uint64(i)
        z = low_z
        while z <= last_z:
            low, high = np.int16(0), np.int16(layout.strip.shape[2])
            for q in range(len(span)):
                if q != layout.guide:
                    p = np.uint64(q)
                    first, last = np.uint64(boxes[box, 2 + 2 * p]), np.uint64(boxes[box, 3 + 2 * p])
                    low = max(low, span[p, first, z, 0])
                    high = min(high, span[p, last, z, 1])
            if low < high:
                run = np.uint64(n)
                runs[run, 0], runs[run, 1], runs[run, 2] = z, low, high
                n += 1
            z += ONE
    return n


@inner
def slice_runs(
    layout: Layout, work: Scratch, runs: np.ndarray, boxes: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """The runs (column, low, high) of candidates in the slice whose groups are listed; their number first."""
    n = np.int64(0)
    for r in range(1 if layout.guide < 0 else work.n_groups[layout.guide]):
        low, high = 0, layout.strip.shape[1]
        if layout.guide >= 0:
            low = layout.columns[layout.guide, work.groups[layout.guide, r, 0], 0]
            high = layout.columns[layout.guide, work.groups[layout.guide, r, 1], 1]
        while low < high:
            end = min(low + COLUMNS, high)
            low_z, last_z = np.uint64(low), np.uint64(end - 1)
            n_boxes, now = combine(layout, low_z, last_z, work, boxes)
            while n_boxes > boxes.shape[1]:
                boxes = np.empty((2, 2 * n_boxes, boxes.shape[2]), np.int32)
                n_boxes, now = combine(layout, low_z, last_z, work, boxes)
            if n + n_boxes * (end - low) > len(runs):
                runs = room(runs, n + n_boxes * (end - low))
            n = cut_boxes(layout, low_z, last_z, boxes[now], n_boxes, runs, n)
            low = end
    return n, runs, boxes
