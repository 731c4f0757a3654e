"""Point sources whose light a network describes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.sources.cascade_settings import CHARGE_OUTPUTS, NetworkSettings
from hpcreco.experiments.icecube.sources.configured import SourceError
from hpcreco.experiments.icecube.sources.constants import of_detector
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source
from hpcreco.experiments.icecube.sources.mixture import UNIT, Mixture, MixtureDelays
from hpcreco.experiments.icecube.sources.network import LayerSpec, Network
from hpcreco.experiments.icecube.sources.point import Arrivals, Emission, PointSource
from hpcreco.experiments.icecube.trafo import Transformation

_SCALE = 1e4  # GeV: energy at which the network's charge is the charge


@dataclass(frozen=True)
class Rows:
    """What a network is asked: inputs (M, n, K, C); time (1 | M, n, K) ns that its times count from; energy
    (1 | M, n, K) GeV, which the charge is proportional to.
    """

    inputs: Tensor
    time: Tensor
    energy: Tensor


class NetworkSource(PointSource):
    """The `physical` parameters, then `additional_label_names`, then systematic parameters."""

    Settings = NetworkSettings
    #: names of the parameters that every such source has
    physical: tuple[str, ...] = ()

    def __init__(
        self,
        config: Mapping[str, Any],
        detector: Detector,
        trafo: Transformation | None = None,
        bases: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__(config, detector, trafo, bases)
        settings: NetworkSettings = self.settings
        systematic = [text.format(i) for text, n in settings.snowstorm_parameter_names for i in range(n)]
        self.parameter_names = (*self.physical, *settings.additional_label_names, *systematic)
        if trafo is None:
            raise SourceError(
                f"{type(self).__name__} scales its inputs with a transformation and has none; make it with "
                "`hpcreco icecube trafo CONFIG`, or name one in data_trafo_settings"
            )
        self.trafo: Transformation = trafo.select(self.parameter_names)
        if settings.scale_charge_by_global_dom_efficiency and "DOMEfficiency" not in self.parameter_names:
            raise SourceError(
                "scale_charge_by_global_dom_efficiency needs a parameter DOMEfficiency among "
                f"additional_label_names; the source has {', '.join(self.parameter_names)}"
            )
        self.constants = of_detector(detector)
        if settings.num_local_vars:
            self.local = nn.Parameter(torch.randn(detector.n_doms, settings.num_local_vars) * 0.01)
        self.mixture = Mixture(settings.components(), settings.prevent_mixture_component_swapping)
        self.further = self.trafo.select(self.parameter_names[len(self.physical) :])
        n_inputs = self.n_inputs() + len(self.further.names) + settings.num_local_vars
        self.network = Network(n_inputs, self.layers(), detector.shape)
        self.row_size = self.network.row_size + 4 * n_inputs

    def layers(self) -> list[LayerSpec]:
        """Of the network."""
        settings: NetworkSettings = self.settings
        return settings.layers()

    @abstractmethod
    def n_inputs(self) -> int:
        """Channels of `describe`."""

    @abstractmethod
    def describe(self, parameters: Tensor) -> Rows:
        """The inputs for sources (1 | M, n, K, p), without further parameters and local values."""

    def expect(self, parameters: Tensor, data: Observation, nearest: int | None = None) -> Expectation:
        """See `PointSource.expect`."""
        if nearest is not None and self.network.mixes_doms:
            raise SourceError(
                "kernels larger than 1 x 1 need all sources at all DOMs; set nearest_cascades to null"
            )
        return super().expect(parameters, data, nearest)

    def emit(self, parameters: Tensor, data: Observation) -> Emission:
        """Light of sources with parameters (1 | M, n, K, p)."""
        rows = self.describe(parameters)
        raw = self.outputs(parameters, rows)
        n_charge = CHARGE_OUTPUTS[self.settings.charge_model]
        of_charge, latents = raw.split([n_charge, raw.shape[-1] - n_charge], dim=-1)
        charge = torch.exp(of_charge[..., 0].clamp(-20.0, 15.0)) * self._factors(parameters, rows)
        return Emission(charge, self._dispersion(of_charge), self.arrivals(latents, rows.time, data))

    def outputs(self, parameters: Tensor, rows: Rows) -> Tensor:
        """(M, n, K, outputs) of the charge and the latents of times."""
        m, n, k, _ = rows.inputs.shape
        inputs = torch.cat([rows.inputs, *self._further_inputs(parameters, (m, n, k))], -1)
        return self.network(inputs.reshape(m, n * k, -1)).to(parameters.dtype).reshape(m, n, k, -1)

    def arrivals(self, latents: Tensor, time: Tensor, data: Observation) -> Arrivals:
        """Time distributions from latents (M, n, K, L), counted from time (1 | M, n, K)."""
        return _Latents(self.mixture, latents, time, 1.0 if self.settings.legacy_time_units else UNIT)

    def _further_inputs(self, parameters: Tensor, grid: tuple[int, int, int]) -> list[Tensor]:
        found = []
        if self.further.names:
            further = parameters[..., len(self.physical) :]
            found.append(self.further.transform(further).expand(*grid, -1))
        if self.settings.num_local_vars:
            found.append(self.local.to(parameters.dtype)[:, None, None].expand(*grid, -1))
        return found

    def _factors(self, parameters: Tensor, rows: Rows) -> Tensor:
        """(1 | M, n, K) what the network's charge is multiplied with."""
        s: NetworkSettings = self.settings
        factor = torch.ones_like(rows.energy)
        if s.scale_charge:
            factor = rows.energy.clamp_min(0.0) / _SCALE
        if s.scale_charge_by_relative_dom_efficiency:
            factor = factor * self.constants.on("efficiency", parameters)[:, None, None]
        if s.scale_charge_by_global_dom_efficiency:
            factor = factor * parameters[..., self.parameter_names.index("DOMEfficiency")]
        return factor

    def _dispersion(self, raw: Tensor) -> Tensor | float:
        """α of variance = μ + αμ²; for an asymmetric Gaussian, of halves s μ and r s μ wide, from its variance."""
        if self.settings.charge_model == "poisson":
            return 0.0
        alpha = elu(raw[..., 1] - 5.0) + 1.000001
        if self.settings.charge_model == "negative_binomial":
            return alpha
        r = elu(1.0 + raw[..., 2]) + 1.001
        return alpha * (r + (1.0 - 2.0 / torch.pi) * (r - 1.0) ** 2)


@dataclass(frozen=True)
class _Latents:
    """raw (M, n, K, L) outputs; time (1 | M, n, K) ns that times count from."""

    mixture: Mixture
    raw: Tensor
    time: Tensor
    unit: float

    def at(self, event: Tensor, dom: Tensor) -> MixtureDelays:
        m, n, k, _ = self.raw.shape
        place = dom * n + event
        shapes, weight = self.mixture.decode(self.raw.reshape(m * n, k, -1)[place])
        time = self.time[0][event] if len(self.time) == 1 else self.time.reshape(m * n, k)[place]
        return MixtureDelays(self.mixture, shapes, weight, time, self.unit)
