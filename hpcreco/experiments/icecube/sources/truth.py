"""The simulation's own formulas as a source: the likelihood that nothing can beat on simulated events.

The formulas are those of `hpcreco.experiments.icecube.light`, which see, in torch. Light that comes after the end of
the readout is not accounted for; with the default window that is less than one photon in a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from hpcreco.config import Strict
from hpcreco.experiments.icecube.light import SPEED_IN_ICE, Ice
from hpcreco.experiments.icecube.sources.constants import of_detector
from hpcreco.experiments.icecube.sources.contract import Observation
from hpcreco.experiments.icecube.sources.geometry import direction
from hpcreco.experiments.icecube.sources.incomplete_gamma import log_density, lower_gamma
from hpcreco.experiments.icecube.sources.point import Emission, PointSource


class TruthSettings(Strict):
    """ice: name of a preset or its constants. systematics: α of the factor on each DOM's light."""

    ice: Ice = Ice()
    systematics: float = Field(default=0.0, ge=0)


class TruthModel(PointSource):
    """A cascade as it is simulated: x, y, z, zenith, azimuth, energy, time."""

    Settings = TruthSettings
    parameter_names = ("x", "y", "z", "zenith", "azimuth", "energy", "time")
    row_size = 16

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.constants = of_detector(self.detector)

    def emit(self, parameters: Tensor, data: Observation) -> Emission:
        """Light of cascades with parameters (1 | M, n, K, 7)."""
        ice: Ice = self.settings.ice
        position = self.constants.on("position", parameters)[:, None, None]
        delta = [position[..., i] - parameters[..., i] for i in range(3)]
        u = direction(parameters[..., 3], parameters[..., 4]).unbind(-1)
        r = torch.sqrt(sum(c * c for c in delta) + ice.core**2)
        cosine = sum(c * along for c, along in zip(delta, u, strict=True)) / r
        ring = ice.ring_norm * torch.exp(-((cosine - ice.cherenkov) ** 2) / (2 * ice.ring**2))
        anisotropy = 1.0 + torch.exp(-r / ice.isotropy) * (ring - 1.0)
        acceptance = 1.0 + ice.acceptance * delta[2] / r
        energy = parameters[..., 5].clamp_min(0.0)
        efficiency = self.constants.on("efficiency", parameters)[:, None, None]
        charge = (
            ice.light * energy * efficiency * acceptance * anisotropy * torch.exp(-r / ice.attenuation) / r
        )
        return Emission(charge, self.settings.systematics, _Pandel(r, parameters[..., 6], ice))


@dataclass(frozen=True)
class _Pandel:
    """Distances (M, n, K) and times of the vertex (1 | M, n, K), or rows of both (R, K)."""

    r: Tensor
    start: Tensor
    ice: Ice

    def at(self, event: Tensor, dom: Tensor) -> _Pandel:
        m, n, k = self.r.shape
        place = dom * n + event
        start = self.start[0][event] if len(self.start) == 1 else self.start.reshape(m * n, k)[place]
        return _Pandel(self.r.reshape(m * n, k)[place], start, self.ice)

    def take(self, rows: Tensor, quantile: Tensor | None = None) -> _Pandel:
        return _Pandel(self.r[rows], self.start[rows], self.ice)

    def pdf(self, time: Tensor) -> Tensor:
        x = self._scaled(time)
        positive = x > 0
        log = log_density(self._shape, torch.where(positive, x, 1.0))
        return torch.where(positive, self.ice.rate * torch.exp(log), 0.0)

    def cdf(self, time: Tensor) -> Tensor:
        return lower_gamma(self._shape, self._scaled(time))

    @property
    def _shape(self) -> Tensor:
        return self.ice.shape + self.r / self.ice.scattering

    def _scaled(self, time: Tensor) -> Tensor:
        return self.ice.rate * (time[:, None] - self.start - self.r / SPEED_IN_ICE)


def model_settings(
    hypothesis: Mapping[str, Any] | None = None, ice: Any = "default", systematics: float = 0.0
) -> dict[str, Any]:
    """`model_settings` of the truth with noise: of one cascade, or of `hypothesis` upon a base called `cascade`.

    hypothesis: ``{model_class, config}`` of a multi-source such as `TrackEquidistantCascadeModel`; its parameters are
    then called ``cascade_...``, a track's ``track_...``.
    """
    cascade: dict[str, Any] = {
        "model_class": "TruthModel",
        "config": {
            "ice": ice.model_dump() if isinstance(ice, Ice) else ice,
            "systematics": systematics,
        },
    }
    name = "cascade"
    if hypothesis is not None:
        name = "track" if "track" in hypothesis["model_class"].lower() else "cascade"
        cascade = {**hypothesis, "multi_source_bases": {"cascade": cascade}}
    return {
        "model_class": "IndependentMultiSource",
        "config": {"sources": {name: name, "noise": "noise"}},
        "multi_source_bases": {
            name: cascade,
            "noise": {"model_class": "DefaultNoiseModel", "config": {"fixed": True}},
        },
    }
