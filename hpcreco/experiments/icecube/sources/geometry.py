"""Directions, in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def direction(zenith: Tensor, azimuth: Tensor) -> Tensor:
    """(..., 3) where a particle flies to that comes from (zenith, azimuth)."""
    sine = torch.sin(zenith)
    return torch.stack([-sine * torch.cos(azimuth), -sine * torch.sin(azimuth), -torch.cos(zenith)], dim=-1)


def safe_norm(vector: Tensor, floor: float = 1e-12) -> Tensor:
    """(...) length of vectors (..., 3), with a finite gradient also at 0; lengths below √floor come out as that."""
    return torch.sqrt((vector * vector).sum(-1).clamp_min(floor))


def opening_angle(a: Tensor, b: Tensor) -> Tensor:
    """(...) angle between unit vectors, precise also near 0 and π: 2 atan2(|a − b|, |a + b|) (W. Kahan)."""
    return 2.0 * torch.atan2(safe_norm(a - b), safe_norm(a + b))


def acceptance(cosine: Tensor) -> Tensor:
    """How well a DOM sees light whose direction has this cosine to the vertical: 1 comes from straight below.

    0.34 (1 + 1.5 c − c³/2) + 0.3 c (c² − 1)³, of the family of curves used for the refrozen ice around DOMs.
    """
    c = cosine
    return 0.34 * (1.0 + 1.5 * c - 0.5 * c**3) + 0.3 * c * (c * c - 1.0) ** 3
