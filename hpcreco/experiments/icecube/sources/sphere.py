"""Tracks that come into a sphere around the detector and go through all of it."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from hpcreco.experiments.icecube.light import REFRACTIVE_INDEX, SPEED_IN_ICE, SPEED_OF_LIGHT
from hpcreco.experiments.icecube.sources.cascade_settings import NetworkSettings
from hpcreco.experiments.icecube.sources.geometry import direction, length
from hpcreco.experiments.icecube.sources.networked import NetworkSource, Rows

_STABLE = 0.1  # m added to distances
_COSINE = 1.0 / REFRACTIVE_INDEX  # of the Cherenkov angle
_SINE = math.sqrt(1.0 - _COSINE**2)


class SphereSettings(NetworkSettings):
    """sphere_radius: m."""

    sphere_radius: float = Field(default=750.0, gt=0)


class EnteringSphereInfTrack(NetworkSource):
    """Where on the sphere (zenith and azimuth of that point), when and with what energy a track comes in, and its
    direction. The time only moves the light.
    """

    Settings = SphereSettings
    physical = ("entry_zenith", "entry_azimuth", "entry_t", "entry_energy", "zenith", "azimuth")

    def n_inputs(self) -> int:
        """Entry, direction, energy; unit vector and distance from the track to the DOM, length of the track until
        there, depth of where direct light comes from.
        """
        return 7 + 6

    def describe(self, parameters: Tensor) -> Rows:
        """The inputs for tracks (1 | M, n, K, p)."""
        radius = self.settings.sphere_radius
        entry = -radius * direction(parameters[..., 0], parameters[..., 1])
        u = direction(parameters[..., 4], parameters[..., 5])
        time, energy = parameters[..., 2], parameters[..., 3]
        trafo = self.trafo.select(["entry_energy"])
        scaled = trafo.transform(energy.clamp_min(0.0)[..., None])
        position = self.constants.on("position", parameters)[:, None, None]
        delta = [position[..., i] - entry[..., i] for i in range(3)]
        until = sum(d * along for d, along in zip(delta, u.unbind(-1), strict=True))
        across = [d - until * along for d, along in zip(delta, u.unbind(-1), strict=True)]
        rho = length(across) + _STABLE
        emitted = until - rho * _COSINE / _SINE  # where Cherenkov light to the DOM leaves the track
        depth = (entry[..., 2] + emitted * u[..., 2]) / radius
        channels = [*(a / rho for a in across), rho / radius, until / radius, depth]
        own = torch.cat([entry / radius, u, scaled], -1)
        if self.settings.time_reference == "geometry":
            time = time + emitted / SPEED_OF_LIGHT + rho / _SINE / SPEED_IN_ICE
        return Rows(torch.cat([own.expand(*rho.shape, -1), torch.stack(channels, -1)], -1), time, energy)
