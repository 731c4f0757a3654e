"""Where straight tracks meet a cylinder around the z axis, without NaN for vertical and horizontal ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 1.0  # m beside the surface
_TINY = 1e-12


@dataclass(frozen=True)
class Cylinder:
    """ρ ≤ radius, |z| ≤ half_height, m."""

    radius: float
    half_height: float

    def entry(self, position: Tensor, u: Tensor) -> Tensor:
        """(...) m along the flight from position (..., 3), direction u (..., 3), to the first point of the surface.

        Infinite where the line misses the cylinder.
        """
        x, y, z = position.unbind(-1)
        ux, uy, uz = u.unbind(-1)
        across = ux**2 + uy**2
        tilted = across > _TINY
        across = torch.where(tilted, across, 1.0)
        root = across * self.radius**2 - (x * uy - y * ux) ** 2
        meets = tilted & (root > 0)
        root = torch.sqrt(torch.where(meets, root, 1.0))
        middle = -(x * ux + y * uy)
        rising = uz.abs() > _TINY
        slope = torch.where(rising, uz, 1.0)
        lengths = torch.stack(
            [
                (middle - root) / across,
                (middle + root) / across,
                (-self.half_height - z) / slope,
                (self.half_height - z) / slope,
            ]
        )
        point = position + lengths[..., None] * u
        inside = (torch.hypot(point[..., 0], point[..., 1]) <= self.radius + _TOLERANCE) & (
            point[..., 2].abs() <= self.half_height + _TOLERANCE
        )
        counts = inside & torch.stack([meets, meets, rising, rising])
        return torch.where(counts, lengths, torch.inf).amin(0)

    def nearest(self, position: Tensor, u: Tensor) -> Tensor:
        """(...) m along the flight to the point nearest to the origin."""
        return -(position * u).sum(-1)
