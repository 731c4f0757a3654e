"""Light of an electromagnetic cascade at a DOM, as formulas: the truth that simulated events are drawn from.

Bare numpy, float64. ``u`` is the direction a particle flies in; Δ points from the cascade to the DOM; everywhere
r = sqrt(|Δ|² + r₀²), so that nothing diverges at a DOM.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import model_validator

from hpcreco.config import Strict

SPEED_OF_LIGHT = 0.299792458  # m/ns
SPEED_IN_ICE = 0.22103046286329384  # m/ns, group velocity
REFRACTIVE_INDEX = 1.3195


class Ice(Strict):
    """Constants of the light yield and of the time distribution; lengths m, times ns, yield PE·m/GeV.

    In a config also the name of one of `ICES`.
    """

    light: float = 0.6  # N₀
    core: float = 1.0  # r₀
    attenuation: float = 50.0  # λ
    isotropy: float = 100.0  # λ_iso: how far the cascade's direction is remembered
    ring: float = 0.45  # s, width of the Cherenkov ring in cos ψ
    acceptance: float = 0.6  # a₁: photomultipliers look down
    shape: float = 1.0  # κ₀
    scattering: float = 33.3  # λ_P
    scattering_time: float = 120.0  # τ
    absorption: float = 98.0  # λ_a

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in ICES:
            raise ValueError(f"no ice of this name; known: {', '.join(ICES)}")
        return ICES[value].model_dump()

    @property
    def cherenkov(self) -> float:
        """c₀, cosine of the Cherenkov angle."""
        return 1.0 / REFRACTIVE_INDEX

    @cached_property
    def ring_norm(self) -> float:
        """K such that the mean of `ring_profile` over the sphere is 1."""
        c, s = self.cherenkov, self.ring
        root = math.sqrt(2.0) * s
        return 1.0 / (
            0.5 * s * math.sqrt(math.pi / 2) * (math.erf((1 - c) / root) + math.erf((1 + c) / root))
        )

    @property
    def rate(self) -> float:
        """ρ = 1/τ + c_ice/λ_a, 1/ns."""
        return 1.0 / self.scattering_time + SPEED_IN_ICE / self.absorption


#: bounded densities; the constants of the AMANDA ice, whose density is singular at 0 for r < λ_P
ICES = {"default": Ice(), "amanda": Ice(shape=0.0, scattering_time=557.0)}


def direction(zenith: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """(..., 3) where a particle flies to that comes from (zenith, azimuth): u = −(sinθ cosφ, sinθ sinφ, cosθ)."""
    sine = np.sin(zenith)
    return np.stack([-sine * np.cos(azimuth), -sine * np.sin(azimuth), -np.cos(zenith)], axis=-1)


def distance(cascades: np.ndarray, positions: np.ndarray, ice: Ice) -> np.ndarray:
    """(C, M) r from cascades (C, 7) to DOMs (M, 3), m."""
    delta = positions - cascades[:, None, :3]
    return np.sqrt(np.einsum("cmi,cmi->cm", delta, delta) + ice.core**2)


def expected_charge(
    cascades: np.ndarray, positions: np.ndarray, efficiency: np.ndarray, ice: Ice
) -> np.ndarray:
    """(C, M) photo-electrons that cascades (C, 7: x y z zenith azimuth energy time) bring to DOMs (M, 3).

    μ = N₀ E ε A f e^{−r/λ}/r, f = 1 + e^{−r/λ_iso} (h(cos ψ) − 1), h(c) = K exp(−(c−c₀)²/2s²), A = 1 + a₁ Δ_z/r.
    A negative energy gives no light.
    """
    delta = positions - cascades[:, None, :3]
    r = np.sqrt(np.einsum("cmi,cmi->cm", delta, delta) + ice.core**2)
    cosine = np.einsum("cmi,ci->cm", delta, direction(cascades[:, 3], cascades[:, 4])) / r
    ring = ice.ring_norm * np.exp(-((cosine - ice.cherenkov) ** 2) / (2 * ice.ring**2))
    anisotropy = 1.0 + np.exp(-r / ice.isotropy) * (ring - 1.0)
    acceptance = 1.0 + ice.acceptance * delta[..., 2] / r
    energy = np.maximum(cascades[:, 5, None], 0.0)
    return ice.light * energy * efficiency * acceptance * anisotropy * np.exp(-r / ice.attenuation) / r


def earliest(cascades: np.ndarray, positions: np.ndarray, ice: Ice) -> np.ndarray:
    """(C, M) ns: when unscattered light of each cascade reaches each DOM, t₀ + r/c_ice."""
    return cascades[:, 6, None] + distance(cascades, positions, ice) / SPEED_IN_ICE


def shape(r: np.ndarray, ice: Ice) -> np.ndarray:
    """κ = κ₀ + r/λ_P of the Gamma distribution of the delay behind `earliest`; its rate is `ice.rate`."""
    return ice.shape + r / ice.scattering


def delay_pdf(delay: np.ndarray, kappa: np.ndarray, ice: Ice) -> np.ndarray:
    """p(τ) = ρ^κ τ^{κ−1} e^{−ρτ} / Γ(κ), 1/ns; 0 for τ < 0. (Pandel function, with absorption.)"""
    from scipy.special import gammaln

    positive = np.where(delay > 0, delay, 1.0)
    log = kappa * np.log(ice.rate) + (kappa - 1) * np.log(positive) - ice.rate * positive - gammaln(kappa)
    return np.where(delay > 0, np.exp(log), 0.0)


def delay_cdf(delay: np.ndarray, kappa: np.ndarray, ice: Ice) -> np.ndarray:
    """The fraction of photons with a delay below `delay`: the regularised lower incomplete Γ(κ, ρτ)."""
    from scipy.special import gammainc

    return gammainc(kappa, ice.rate * np.maximum(delay, 0.0))
