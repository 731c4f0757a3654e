"""Cascades whose light depends on more: on how much of a DOM's charge has come, on systematic parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hpcreco.experiments.icecube.sources.cascade import DefaultCascadeModel
from hpcreco.experiments.icecube.sources.cascade_settings import CascadeSettings
from hpcreco.experiments.icecube.sources.configured import SourceError
from hpcreco.experiments.icecube.sources.contract import Observation
from hpcreco.experiments.icecube.sources.mixture import UNIT, Mixture, MixtureDelays
from hpcreco.experiments.icecube.sources.network import LayerSpec
from hpcreco.experiments.icecube.sources.networked import Rows
from hpcreco.experiments.icecube.sources.point import Arrivals

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


class QuantileSettings(CascadeSettings):
    """quantile_width: of the layer through which the quantile changes the latents of times."""

    quantile_width: int = Field(default=32, ge=1)


class ChargeQuantileCascade(DefaultCascadeModel):
    """A cascade with p(t | quantile of the DOM's charge that has come with the pulse), for
    `unbinned_charge_quantile_pdf`.

    Without a quantile (in gaps, for a cdf) times are distributed as the mean over all quantiles.
    """

    Settings = QuantileSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        n, width = self.mixture.n_latents, self.settings.quantile_width
        self.condition = nn.Sequential(nn.Linear(n + 1, width), nn.ELU(), nn.Linear(width, n))

    def arrivals(self, latents: Tensor, time: Tensor, data: Observation) -> Arrivals:
        """See `NetworkSource`."""
        unit = 1.0 if self.settings.legacy_time_units else UNIT
        return _ByQuantile(self.mixture, self._given, latents, time, unit)

    def _given(self, latents: Tensor, quantile: Tensor) -> Tensor:
        """Latents (R, K, L) at quantiles (R,)."""
        weight = next(self.condition.parameters())
        column = (2.0 * quantile - 1.0)[:, None, None].expand(*latents.shape[:2], 1)
        moved = self.condition(torch.cat([latents, column.to(latents)], -1).to(weight.dtype))
        return latents + moved.to(latents.dtype)


@dataclass(frozen=True)
class _ByQuantile:
    """raw latents (M, n, K, L) of all places, or (R, K, L) of rows; time (1 | M, n, K), or (R, K)."""

    mixture: Mixture
    given: Callable[[Tensor, Tensor], Tensor]
    raw: Tensor
    time: Tensor
    unit: float
    quantile: Tensor | None = None

    def at(self, event: Tensor, dom: Tensor) -> _ByQuantile:
        m, n, k, _ = self.raw.shape
        place = dom * n + event
        time = self.time[0][event] if len(self.time) == 1 else self.time.reshape(m * n, k)[place]
        return replace(self, raw=self.raw.reshape(m * n, k, -1)[place], time=time)

    def take(self, rows: Tensor, quantile: Tensor | None = None) -> _ByQuantile:
        return replace(self, raw=self.raw[rows], time=self.time[rows], quantile=quantile)

    def pdf(self, time: Tensor) -> Tensor:
        if self.quantile is None:
            return self._mean(lambda delays: delays.pdf(time))
        return self._delays(self.quantile.to(self.raw)).pdf(time)

    def cdf(self, time: Tensor) -> Tensor:
        return self._mean(lambda delays: delays.cdf(time))

    def _delays(self, quantile: Tensor) -> MixtureDelays:
        shapes, weight = self.mixture.decode(self.given(self.raw, quantile))
        return MixtureDelays(self.mixture, shapes, weight, self.time, self.unit)

    def _mean(self, value: Callable[[MixtureDelays], Tensor]) -> Tensor:
        """Over quantiles from 0 to 1, by Gauss and Legendre."""
        parts = [
            0.5
            * float(weight)
            * value(self._delays(self.raw.new_full((len(self.raw),), 0.5 + 0.5 * float(node))))
            for node, weight in zip(_NODES, _WEIGHTS, strict=True)
        ]
        return torch.stack(parts).sum(0)


class SystematicsCascade(DefaultCascadeModel):
    """A cascade whose outputs depend linearly on each systematic parameter (`snowstorm_parameter_names`).

    outputs = f0(cascade) + sum of s_j f_j(cascade), all f by one network; s is scaled by the transformation, 0 at its
    mean.
    """

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        if not self._systematic:
            raise SourceError(
                "SystematicsCascade has no systematic parameters; set snowstorm_parameter_names"
            )

    @property
    def _systematic(self) -> int:
        settings: CascadeSettings = self.settings
        return sum(count for _, count in settings.snowstorm_parameter_names)

    def layers(self) -> list[LayerSpec]:
        """The last one as many times as wide as there are functions."""
        *before, last = super().layers()
        return [*before, replace(last, width=last.width * (1 + self._systematic))]

    def outputs(self, parameters: Tensor, rows: Rows) -> Tensor:
        """See `NetworkSource`."""
        found = super().outputs(parameters, rows).unflatten(-1, (1 + self._systematic, -1))
        further = self.further.transform(parameters[..., len(self.physical) :])
        scaled = further[..., further.shape[-1] - self._systematic :]
        return found[..., 0, :] + (scaled[..., None] * found[..., 1:, :]).sum(-2)

    def _further_inputs(self, parameters: Tensor, grid: tuple[int, int, int]) -> list[Tensor]:
        """Without the systematic parameters: those are no inputs of the network."""
        number = len(self.parameter_names) - self._systematic
        mean = self.trafo.inverse(torch.zeros(len(self.trafo.names), dtype=torch.float64))[number:]
        constant = mean.to(parameters).expand(*parameters.shape[:-1], -1)
        return super()._further_inputs(torch.cat([parameters[..., :number], constant], -1), grid)
