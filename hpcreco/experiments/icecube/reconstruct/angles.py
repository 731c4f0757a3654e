"""Directions on the sphere: opening angles, and directions at an angle from another."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(zenith: Tensor, azimuth: Tensor) -> Tensor:
    """(..., 3) unit vectors that point where a particle comes from."""
    sine = zenith.sin()
    return torch.stack([sine * azimuth.cos(), sine * azimuth.sin(), zenith.cos()], -1)


def opening(a: Tensor, b: Tensor) -> Tensor:
    """Angle between unit vectors (..., 3), rad; exact also where it is small or close to 180 degrees."""
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


def angles(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Zenith and azimuth (in [0, 2 pi)) of vectors (..., 3)."""
    zenith = torch.atan2(vectors[..., :2].norm(dim=-1), vectors[..., 2])
    return zenith, torch.remainder(torch.atan2(vectors[..., 1], vectors[..., 0]), 2 * torch.pi)


def away_from(zenith: Tensor, azimuth: Tensor, angle: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The directions `angle` away from others, at position angle `position` around them (0: towards larger zenith)."""
    centre = unit(zenith, azimuth)
    south = unit(zenith + torch.pi / 2, azimuth)
    east = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], -1)
    aside = position.cos()[..., None] * south + position.sin()[..., None] * east
    return angles(angle.cos()[..., None] * centre + angle.sin()[..., None] * aside)
