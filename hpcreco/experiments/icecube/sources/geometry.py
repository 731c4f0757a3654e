"""Directions, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def direction(zenith: Tensor, azimuth: Tensor) -> Tensor:
    """(..., 3) where a particle flies to that comes from (zenith, azimuth)."""
    sine = torch.sin(zenith)
    return torch.stack([-sine * torch.cos(azimuth), -sine * torch.sin(azimuth), -torch.cos(zenith)], dim=-1)


def length(components: Sequence[Tensor], floor: float = 1e-12) -> Tensor:
    """(...) length of vectors given by components (...), with a finite gradient also at 0; at least √floor."""
    return torch.sqrt(sum(c * c for c in components).clamp_min(floor))


def opening_angle(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """(...) angle between unit vectors by components, precise also near 0 and π:
    2 atan2(|a − b|, |a + b|) (W. Kahan).
    """
    apart = length([x - y for x, y in zip(a, b, strict=True)])
    together = length([x + y for x, y in zip(a, b, strict=True)])
    return 2.0 * torch.atan2(apart, together)


def acceptance(cosine: Tensor) -> Tensor:
    """How well a DOM sees light whose direction has this cosine to the vertical: 1 comes from straight below.

    0.34 (1 + 1.5 c − c³/2) + 0.3 c (c² − 1)³, of the family of curves used for the refrozen ice around DOMs.
    """
    c = cosine
    return 0.34 * (1.0 + 1.5 * c - 0.5 * c**3) + 0.3 * c * (c * c - 1.0) ** 3
