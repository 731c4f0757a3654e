"""Drift of ionisation electrons to the wires, and the truth of what was deposited where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcreco.experiments.protodune.geometry import (
    DRIFT_PER_TICK,
    DRIFT_SPEED,
    N_CHANNELS,
    N_TICKS,
    SIM_T0,
    VOXEL_SIZE,
    Face,
    Geometry,
)
from hpcreco.experiments.protodune.simulation.deposits import Deposits
from hpcreco.experiments.protodune.simulation.generator import Crop


@dataclass(frozen=True)
class DriftSettings:
    """Transport of electrons. Diffusion 0 and lifetime infinite are allowed; `sub_charges` = 1 keeps steps whole."""

    lifetime: float = 10_400.0  # us
    longitudinal: float = 4.0  # cm2/s
    transverse: float = 8.8  # cm2/s
    sub_charges: int = 6


@dataclass(frozen=True)
class Charges:
    """Electrons collected per (channel, tick): `key` = channel * N_TICKS + tick, ascending and unique."""

    key: np.ndarray  # int64
    electrons: np.ndarray  # float64

    @property
    def channel(self) -> np.ndarray:
        return self.key // N_TICKS

    @property
    def tick(self) -> np.ndarray:
        return self.key % N_TICKS


@dataclass(frozen=True)
class Localised:
    """Deposits of one face in its readout frame."""

    position: np.ndarray  # (N, 3) mm, drift time offset included
    extent: np.ndarray  # (N, 3) mm
    deposits: Deposits


def localise(deposits: Deposits, geometry: Geometry, tpc: int, crop: Crop | None = None) -> Localised:
    """The deposits whose charge arrives on the face of `tpc` inside the readout window (and inside `crop`)."""
    local, keep = geometry.to_local(tpc, deposits.position, deposits.time)
    if crop is not None:
        keep = keep & ((local >= crop.low) & (local < crop.high)).all(axis=1)
    rows = np.flatnonzero(keep)
    extent = deposits.extent[rows].copy()
    if geometry.face(tpc).face == 1:
        extent[:, 0] *= -1.0
    return Localised(local[rows], extent, deposits.take(rows))


def drift_time(local: Localised) -> np.ndarray:
    """Drift time (N,) us of each deposit to the anode."""
    return local.position[:, 0] / DRIFT_SPEED - (local.deposits.time + SIM_T0)


def survivors(local: Localised, settings: DriftSettings) -> np.ndarray:
    """Electrons (N,) of each deposit that are not captured on their way: exp(-t / lifetime)."""
    return local.deposits.electrons * np.exp(-drift_time(local) / settings.lifetime)


def collect(local: Localised, face: Face, settings: DriftSettings, rng: np.random.Generator) -> Charges:
    """Drift, diffuse and collect on the nearest strip of each plane.

    Every step is split into equal sub-charges spread along it, smeared by sigma = sqrt(2 D t) along and across
    the drift. Charge outside the readout window is lost; charge beyond the outermost strip ends on its wire.
    """
    n_sub = settings.sub_charges
    time = np.maximum(drift_time(local), 0.0) * 1e-6  # s
    sigma_l, sigma_t = (np.sqrt(2.0 * 100.0 * d * time) for d in (settings.longitudinal, settings.transverse))
    position = np.repeat(local.position, n_sub, axis=0)
    if n_sub > 1:
        along = rng.uniform(-0.5, 0.5, (len(position), 1))
        position += along * np.repeat(local.extent, n_sub, axis=0)
    if settings.longitudinal > 0.0 or settings.transverse > 0.0:
        smear = rng.standard_normal((len(position), 3))
        smear[:, 0] *= np.repeat(sigma_l, n_sub)
        smear[:, 1:] *= np.repeat(sigma_t, n_sub)[:, None]
        position += smear
    weight = np.repeat(survivors(local, settings) / n_sub, n_sub)
    tick = np.floor(position[:, 0] / DRIFT_PER_TICK).astype(np.int64)
    inside = (tick >= 0) & (tick < N_TICKS)
    keys = []
    for plane in face.planes:
        wire = plane.nearest(position[inside, 2], position[inside, 1], clip=True)
        keys.append(plane.channels[wire].astype(np.int64) * N_TICKS + tick[inside])
    return sum_charges(np.concatenate(keys), np.tile(weight[inside], len(face.planes)))


def sum_charges(key: np.ndarray, electrons: np.ndarray) -> Charges:
    """Add up electrons that share a key."""
    dense = np.bincount(key, electrons, minlength=N_CHANNELS * N_TICKS)
    unique = np.flatnonzero(dense)
    return Charges(unique, dense[unique])


@dataclass(frozen=True)
class Truth:
    """Deposits summed into fine voxels of the readout frame, sorted by (x, y, z)."""

    coords: np.ndarray  # (M, 3) int32
    energy: np.ndarray  # MeV
    electrons: np.ndarray
    track_id: np.ndarray  # int32, of most steps in the voxel
    pdg: np.ndarray  # int32, of that track


def voxelise(local: Localised) -> Truth:
    """Sum energy and electrons over fine voxels; the track is the one with the most steps, lowest id first."""
    cell = np.floor(local.position / VOXEL_SIZE).astype(np.int64)
    key = (cell[:, 0] << 40) | (cell[:, 1] << 20) | cell[:, 2]
    voxels, inverse = np.unique(key, return_inverse=True)
    n = len(voxels)
    energy = np.bincount(inverse, local.deposits.energy, minlength=n)
    charge = np.bincount(inverse, local.deposits.electrons, minlength=n)
    pairs, first, steps = np.unique(
        (inverse.astype(np.int64) << 32) | local.deposits.track, return_index=True, return_counts=True
    )
    voxel = pairs >> 32
    order = np.lexsort((pairs, -steps, voxel))
    winner = first[order[np.searchsorted(voxel[order], np.arange(n))]]
    coords = np.stack([voxels >> 40, (voxels >> 20) & 0xFFFFF, voxels & 0xFFFFF], axis=1).astype(np.int32)
    return Truth(coords, energy, charge, local.deposits.track[winner], local.deposits.pdg[winner])
