"""Energy loss, range and recombination in liquid argon. Energies MeV, lengths mm unless a name says cm."""

from __future__ import annotations

import numpy as np

DENSITY = 1.396  # g/cm3
FIELD = 0.5  # kV/cm
BIRKS_A, BIRKS_K = 0.8, 0.0486  # ICARUS, NIM A 523 (2004) 275; k in (kV/cm)(g/cm2)/MeV
WORK = 23.6e-6  # MeV per electron-ion pair
MIP = 0.21  # mean dE/dx of a minimum-ionising particle, MeV/mm
MOST_PROBABLE = 0.17  # MeV/mm
DEDX_CAP = 1.0  # MeV/mm, of the fluctuating part
# The mean of -ln(z^2), z standard normal (a Moyal variable), is Euler's gamma + ln 2.
MOYAL_WIDTH = (MIP - MOST_PROBABLE) / (np.euler_gamma + np.log(2.0))

MASS = {"mu": 105.658, "pi": 139.570, "p": 938.272, "e": 0.511}
# dE/dx = max(floor, scale * R_cm^-0.42) MeV/cm near the end of the range R
_POWER = 0.42
_SCALE = {"mu": 6.8, "pi": 6.8, "p": 17.0}
_FLOOR = {"mu": 2.1, "pi": 2.1, "p": 0.0}


def electrons(energy: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Electrons that escape recombination when `energy` is left over `length` (Birks' law)."""
    dedx_cm = np.asarray(energy) / np.maximum(length, 1e-6) * 10.0
    recombination = BIRKS_A / (1.0 + BIRKS_K * dedx_cm / (DENSITY * FIELD))
    return recombination * energy / WORK


def fluctuation(rng: np.random.Generator, n: int) -> np.ndarray:
    """Straggling factors (n,) of mean 1: a Moyal law of most probable 1.7 and mean 2.1 MeV/cm, cut at 10, over 2.1."""
    z = rng.standard_normal(n)
    with np.errstate(divide="ignore"):
        moyal = MOST_PROBABLE - MOYAL_WIDTH * np.log(z * z)
    return np.clip(moyal, 0.0, DEDX_CAP) / MIP


def kinetic_energy(particle: str, residual: np.ndarray) -> np.ndarray:
    """Kinetic energy left when `residual` mm of range remain: the integral of dE/dx over the range."""
    scale, floor = _SCALE[particle], _FLOOR[particle]
    r_cm = np.maximum(residual, 0.0) / 10.0
    power = 1.0 - _POWER
    if floor == 0.0:
        return scale / power * r_cm**power
    knee = (scale / floor) ** (1.0 / _POWER)
    below = np.minimum(r_cm, knee)
    return scale / power * below**power + floor * (r_cm - below)


def residual_range(particle: str, kinetic: float) -> float:
    """Range in mm of a particle: the inverse of `kinetic_energy`."""
    scale, floor = _SCALE[particle], _FLOOR[particle]
    power = 1.0 - _POWER
    r_cm = (kinetic * power / scale) ** (1.0 / power)
    if floor > 0.0:
        knee = (scale / floor) ** (1.0 / _POWER)
        if r_cm > knee:
            r_cm = knee + (kinetic - scale / power * knee**power) / floor
    return 10.0 * r_cm


def momentum(particle: str, kinetic: np.ndarray) -> np.ndarray:
    """Momentum in MeV/c of a kinetic energy."""
    return np.sqrt(np.asarray(kinetic) ** 2 + 2.0 * np.asarray(kinetic) * MASS[particle])


def kink(p: np.ndarray, step: float | np.ndarray) -> np.ndarray:
    """Multiple-scattering angle (rad, one projection) of a step: 13.6/p sqrt(step/X0), X0 = 140 mm, at most 0.3."""
    return np.minimum(13.6 / np.maximum(p, 1.0) * np.sqrt(np.asarray(step) / 140.0), 0.3)
