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
