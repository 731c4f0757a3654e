"""Maps of HEALPix pixels of several resolutions.

Pixels are numbered in the NESTED scheme, in which pixel i of one resolution is made of 4 i ... 4 i + 3 of the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pixels(
    nside: int, rings: Sequence[tuple[float, int]], centres: Sequence[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """(nside, pixel) of a map of the whole sky and rings around `centres` (zenith, azimuth), all NESTED.

    A pixel belongs to a ring that its centre lies in, without those of the rings inside.
    """
    import healpy

    chosen = [(np.full(12 * nside**2, nside), np.arange(12 * nside**2))]
    ordered = sorted(rings)
    for centre in centres:
        middle = healpy.ang2vec(*centre)
        inner = 0.0
        for outer, resolution in ordered:
            near = healpy.query_disc(resolution, middle, np.radians(outer), nest=True)
            distance = np.arccos(
                np.clip(np.stack(healpy.pix2vec(resolution, near, nest=True), 1) @ middle, -1, 1)
            )
            ring = near[distance >= np.radians(inner)] if inner else near
            chosen.append((np.full(len(ring), resolution), ring))
            inner = outer
    both = np.unique(np.concatenate([np.stack(part, 1) for part in chosen]), axis=0)
    return both[:, 0], both[:, 1]


def combined(nside: np.ndarray, pixel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of NESTED pixels of several resolutions on the finest of them; a finer pixel beats a coarser one."""
    finest = int(nside.max())
    whole = np.full(12 * finest**2, np.nan)
    for resolution in np.unique(nside):
        share = (finest // int(resolution)) ** 2
        for number, value in zip(pixel[nside == resolution], values[nside == resolution], strict=True):
            whole[number * share : (number + 1) * share] = value
    return whole
