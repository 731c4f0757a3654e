"""A piece of a track that shines evenly along its length."""

from __future__ import annotations

import torch
from torch import Tensor

from hpcreco.experiments.icecube.light import REFRACTIVE_INDEX, SPEED_IN_ICE, SPEED_OF_LIGHT
from hpcreco.experiments.icecube.sources.cascade import CASCADE
from hpcreco.experiments.icecube.sources.geometry import direction, length
from hpcreco.experiments.icecube.sources.networked import NetworkSource, Rows

_STABLE = 0.1  # m added to distances
_SCALE = 100.0  # m, of distances as inputs
_TANGENT = (REFRACTIVE_INDEX**2 - 1.0) ** 0.5  # of the Cherenkov angle


class StochasticTrackSegment(NetworkSource):
    """Where it begins, its direction, the energy it loses, when it begins, and its length (m).

    The time only moves the light.
    """

    physical = (*CASCADE, "length")

    def n_inputs(self) -> int:
        """Position, direction, energy, length; unit vector and distance from the segment's nearest point to the DOM,
        where on the segment that is, and where direct light leaves.
        """
        return 8 + 6

    def describe(self, parameters: Tensor) -> Rows:
        """The inputs for segments (1 | M, n, K, p)."""
        u = direction(parameters[..., 3], parameters[..., 4])
        energy, time, extent = parameters[..., 5], parameters[..., 6], parameters[..., 7].clamp_min(0.0)
        columns = [*parameters[..., :5].unbind(-1), energy.clamp_min(0.0), time, extent]
        scaled = self.trafo.select(self.physical).transform(torch.stack(columns, -1))
        position = self.constants.on("position", parameters)[:, None, None]
        delta = [position[..., i] - parameters[..., i] for i in range(3)]
        flown = sum(d * c for d, c in zip(delta, u.unbind(-1), strict=True))
        rho = length([d - flown * c for d, c in zip(delta, u.unbind(-1), strict=True)]) + _STABLE
        nearest = torch.minimum(flown.clamp_min(0.0), extent)
        away = [d - nearest * c for d, c in zip(delta, u.unbind(-1), strict=True)]
        r = length(away) + _STABLE
        emitted = torch.minimum((flown - rho / _TANGENT).clamp_min(0.0), extent)
        path = length([d - emitted * c for d, c in zip(delta, u.unbind(-1), strict=True)])
        channels = [*(a / r for a in away), r / _SCALE, nearest / _SCALE, emitted / _SCALE]
        own = torch.cat([scaled[..., :3], u, scaled[..., 5:6], scaled[..., 7:8]], -1)
        if self.settings.time_reference == "geometry":
            time = time + emitted / SPEED_OF_LIGHT + path / SPEED_IN_ICE
        return Rows(torch.cat([own.expand(*r.shape, -1), torch.stack(channels, -1)], -1), time, energy)
