"""The tiler of one face: waveforms of an event in, candidate voxels with their charges out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hpcreco.compiling import HAVE_NUMBA
from hpcreco.experiments.protodune.geometry import DOWNSAMPLE, N_CHANNELS, N_TICKS, Face
from hpcreco.experiments.protodune.tiling import arrays, chunks, cuts, kernels, layout, scratch

ALGORITHM_VERSION = 2  # raise when the same input gives other rows: finished files become stale

#: coords, charges, charge lost (n_ticks, P), number of fine candidates
Raw = tuple[np.ndarray, np.ndarray, np.ndarray, int]


class TilingError(RuntimeError):
    """Input that cannot be tiled."""

    exit_code = 1


@dataclass(frozen=True)
class TilingOptions:
    """What decides the result besides the geometry.

    threshold : a sample is active when its charge is strictly above [electrons]
    active_none : regions without a wire count as active
    dead_channels : local channels that are always active and carry no charge
    clip_negative : negative samples count as zero
    legacy_rounding : a strip lights a pixel only if its share does not round to zero (the original's rule)
    """

    downsample: tuple[int, int, int] = DOWNSAMPLE
    threshold: float = 1e-3
    active_none: bool = True
    dead_channels: tuple[int, ...] = ()
    clip_negative: bool = False
    legacy_rounding: bool = False


@dataclass(frozen=True)
class Tiles:
    """Candidates of one event in lexicographic (x, y, z) order.

    coords : int32 (N, 3) coarse cells
    features : float32 (N, P) charge [electrons] per plane, in the face's plane order; float64 if exact
    lost : float64 (P,) charge of active channels that no candidate could take
    pixels : number of fine candidates
    """

    coords: np.ndarray
    features: np.ndarray
    lost: np.ndarray
    pixels: int


class Tiler:
    """Tables built once, then any number of events. Safe to use from several threads."""

    def __init__(
        self,
        face: Face,
        options: TilingOptions | None = None,
        n_ticks: int = N_TICKS,
        n_channels: int = N_CHANNELS,
        threads: int = 1,
        engine: str | None = None,
    ) -> None:
        """`engine` is numba or numpy, by default numba where it is installed; both give the same bits."""
        self.options = options or TilingOptions()
        if min(self.options.downsample) < 1 or n_ticks % self.options.downsample[0]:
            raise TilingError(
                f"downsample {self.options.downsample} does not fit: factors are at least 1 and the first "
                f"must divide the {n_ticks} ticks of the waveforms"
            )
        self.face, self.n_ticks, self.n_channels, self.threads = face, n_ticks, n_channels, max(1, threads)
        self.engine = engine or ("numba" if HAVE_NUMBA else "numpy")
        if self.engine not in ("numba", "numpy") or (self.engine == "numba" and not HAVE_NUMBA):
            raise TilingError(f"tiling engine {self.engine!r} is not available here; use numpy")
        self.layout = layout.build(
            face,
            n_channels,
            self.options.active_none,
            tuple(self.options.dead_channels),
            self.options.legacy_rounding,
        )
        self.grid = layout.Grid(*self.options.downsample, self.options.threshold, arrays.glows(self.layout))
        if self.engine == "numba":
            self.cuts = cuts.cuts(self.layout)
        # one for all events: a thread that has no more to do for one begins with the next
        self._pool = ThreadPoolExecutor(self.threads, "tiling")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Coarse grid (x, y, z)."""
        n_y, n_z = self.face.pixels
        dx, dy, dz = self.options.downsample
        return self.n_ticks // dx, -(-n_y // dy), -(-n_z // dz)

    def tile(self, tick: np.ndarray, channel: np.ndarray, value: np.ndarray, exact: bool = False) -> Tiles:
        """Candidates of one event given its samples (n,) in any order; TilingError if they do not fit.

        `exact` keeps charges as they were summed, so that later sums over them lose nothing.
        """
        return self.start(tick, channel, value, exact)()

    def start(
        self, tick: np.ndarray, channel: np.ndarray, value: np.ndarray, exact: bool = False
    ) -> Callable[[], Tiles]:
        """Like `tile`, but come back while the threads compute: the result, to be called once, waits for the tiles.

        A single thread does all its work in that call.
        """
        slices = self._slices(np.asarray(tick), np.asarray(channel), np.asarray(value))
        result = self._compiled(slices) if self.engine == "numba" else None

        def finish() -> Tiles:
            made = result() if result else arrays.tile(self.layout, slices, self.grid)
            coords, features, lost, pixels = made
            charges = features if exact else features.astype(np.float32)
            return Tiles(coords, charges, lost.sum(axis=0), int(pixels))

        return finish

    def _slices(self, tick: np.ndarray, channel: np.ndarray, value: np.ndarray) -> layout.Slices:
        for name, column, limit in (("tick", tick, self.n_ticks), ("channel", channel, self.n_channels)):
            if len(column) and (int(column.min()) < 0 or int(column.max()) >= limit):
                raise TilingError(
                    f"{name} {int(column.min())}..{int(column.max())} outside [0, {limit}) of the readout"
                )
        charge = value.astype(np.float64)
        if not np.isfinite(charge).all():
            raise TilingError("waveform holds values that are not finite")
        if self.options.clip_negative:
            charge = np.maximum(charge, 0.0)
        if self.options.dead_channels:
            charge = np.where(np.isin(channel, self.options.dead_channels), 0.0, charge)
        whole = np.int32 if self.n_ticks * self.n_channels < 2**31 else np.int64
        key = tick.astype(whole) * whole(self.n_channels) + channel.astype(whole)
        if not (key[1:] > key[:-1]).all():
            order = np.argsort(key, kind="stable")
            key, channel, charge = key[order], channel[order], charge[order]
            if (key[1:] == key[:-1]).any():
                raise TilingError("a channel has two samples at the same tick")
        offsets = np.searchsorted(key, np.arange(self.n_ticks + 1, dtype=whole) * whole(self.n_channels))
        return layout.Slices(offsets.astype(np.int64), channel.astype(np.int32), charge)

    def _compiled(self, slices: layout.Slices) -> Callable[[], Raw]:
        """Each thread takes chunks of slices until none is left; then rows are put together in order."""
        lost = np.zeros((self.n_ticks, len(self.face.planes)))
        shared = chunks.chunks(self.n_ticks // self.grid.dx, self.threads)

        def work(worker: int) -> tuple[np.ndarray, np.ndarray, int]:
            space = scratch.scratch(self.layout, self.grid)
            return kernels.tile(self.layout, self.cuts, slices, self.grid, space, shared, worker, lost)

        run = map if self.threads == 1 else self._pool.map
        made = run(work, range(self.threads))

        def finish() -> Raw:
            parts = list(made)
            pixels = sum(part[2] for part in parts)
            coords = chunks.in_order(shared, [part[0] for part in parts])
            rest = [part[1] for part in parts]
            parts.clear()  # fine candidates are many: their coordinates are not held twice
            return coords, chunks.in_order(shared, rest), lost, pixels

        return finish
