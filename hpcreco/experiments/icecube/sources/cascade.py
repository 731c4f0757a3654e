"""Cascades whose light a network describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpcreco.experiments.icecube.light import SPEED_IN_ICE, SPEED_OF_LIGHT
from hpcreco.experiments.icecube.sources.cascade_settings import CascadeSettings
from hpcreco.experiments.icecube.sources.configured import SourceError
from hpcreco.experiments.icecube.sources.contract import Observation
from hpcreco.experiments.icecube.sources.geometry import acceptance, direction, length, opening_angle
from hpcreco.experiments.icecube.sources.networked import NetworkSource, Rows
from hpcreco.experiments.icecube.sources.point import Arrivals

CASCADE = ("x", "y", "z", "zenith", "azimuth", "energy", "time")
_ENERGY, _TIME = 5, 6
_STABLE = 0.1  # m added to distances
_DOM_SCALE = 284.0  # m, of DOM coordinates as inputs
# length of a cascade up to its maximum: X (a − 1) / b with a = 2.01849 + 0.63176 ln E, b = X / 0.63207
_SHIFT, _SHIFT_A, _SHIFT_E = 0.63207, 2.01849 - 1.0, 0.63176


class DefaultCascadeModel(NetworkSource):
    """x, y, z, zenith, azimuth, energy, time; the time only moves the light, it is no input of the network."""

    Settings = CascadeSettings
    physical = CASCADE

    def n_inputs(self) -> int:
        """Position, direction, energy; direction and distance to the DOM; options."""
        s: CascadeSettings = self.settings
        options = (s.add_opening_angle, 2 * s.add_anisotropy_angle, 3 * s.add_dom_coordinates)
        return 7 + 4 + sum(options) + s.add_dom_angular_acceptance

    def describe(self, parameters: Tensor) -> Rows:
        """The inputs for cascades (1 | M, n, K, p)."""
        s: CascadeSettings = self.settings
        if s.shift_cascade_vertex:
            parameters = to_maximum(parameters)
        position = self.constants.on("position", parameters)[:, None, None]
        # components apart: rows of three are slow to add up
        delta = [position[..., i] - parameters[..., i] for i in range(3)]
        r = length(delta) + _STABLE
        along = [component / r for component in delta]
        u = direction(parameters[..., 3], parameters[..., 4])
        energy, time = parameters[..., _ENERGY], parameters[..., _TIME]
        trafo = self.trafo
        lit = parameters.index_copy(-1, _index(parameters, _ENERGY), energy.clamp_min(0.0)[..., None])
        scaled = trafo.transform(lit)
        grid = r.shape
        own = torch.cat([scaled[..., :3], u, scaled[..., _ENERGY : _ENERGY + 1]], -1)
        width = float((trafo.std[:3] ** 2).sum() ** 0.5) + trafo.epsilon
        channels = [*along, r / width]
        if s.add_opening_angle:
            angle = opening_angle(u.unbind(-1), along)
            channels.append((angle - trafo.mean[3]) / (trafo.epsilon + trafo.std[3]))
        if s.add_anisotropy_angle:
            rho = length(delta[:2]) + _STABLE
            channels += [delta[0] / rho, delta[1] / rho]
        if s.add_dom_coordinates:
            channels += [(position[..., i] / _DOM_SCALE).expand(grid) for i in range(3)]
        if s.add_dom_angular_acceptance:
            channels.append(acceptance(along[2]))
        if s.time_reference == "geometry":
            time = time + r / SPEED_IN_ICE
        return Rows(torch.cat([own.expand(*grid, -1), torch.stack(channels, -1)], -1), time, energy)


class ChargeOnlyCascadeModel(DefaultCascadeModel):
    """A cascade of which only the charges are known: any time of the readout is as likely as any other.

    `num_latent_models` is 0, the network puts out the charge and, for negative binomials, its dispersion.
    """

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        config = {"num_latent_models": 0, **config}
        if config["num_latent_models"]:
            raise SourceError("ChargeOnlyCascadeModel has no time distributions; set num_latent_models to 0")
        super().__init__(config, *arguments, **named)

    def arrivals(self, latents: Tensor, time: Tensor, data: Observation) -> Arrivals:
        """Uniform in the readout."""
        return _Uniform(data.window.to(latents.dtype)[:, :, None].expand(-1, -1, latents.shape[2]))


@dataclass(frozen=True)
class _Uniform:
    """window: (n | R, 2, K) ns."""

    window: Tensor

    def at(self, event: Tensor, dom: Tensor) -> _Uniform:
        return _Uniform(self.window[event])

    def take(self, rows: Tensor, quantile: Tensor | None = None) -> _Uniform:
        return _Uniform(self.window[rows])

    def pdf(self, time: Tensor) -> Tensor:
        start, stop = self.window.unbind(1)
        t = time[:, None]
        return torch.where((t >= start) & (t <= stop), 1.0 / (stop - start), 0.0)

    def cdf(self, time: Tensor) -> Tensor:
        start, stop = self.window.unbind(1)
        return ((time[:, None] - start) / (stop - start)).clamp(0.0, 1.0)


def to_maximum(parameters: Tensor) -> Tensor:
    """The same cascades (..., p), their position and time those of the maximum of the shower instead of its start."""
    energy = parameters[..., _ENERGY].clamp_min(0.0)
    shift = (_SHIFT * (_SHIFT_A + _SHIFT_E * torch.log(energy + 1e-6))).clamp_min(0.0)
    u = direction(parameters[..., 3], parameters[..., 4])
    moved = parameters[..., :3] + shift[..., None] * u
    time = parameters[..., _TIME] + shift / SPEED_OF_LIGHT
    return torch.cat([moved, parameters[..., 3:_TIME], time[..., None], parameters[..., _TIME + 1 :]], -1)


def _index(like: Tensor, column: int) -> Tensor:
    return torch.tensor([column], device=like.device)
