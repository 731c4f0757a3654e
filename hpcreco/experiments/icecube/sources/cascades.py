"""Many cascades in a row: what is fitted are a few common parameters and every cascade's energy."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hpcreco.config import Strict
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.light import SPEED_OF_LIGHT
from hpcreco.experiments.icecube.sources.cascade import CASCADE
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource, SourceError
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source
from hpcreco.experiments.icecube.sources.crossing import Cylinder
from hpcreco.experiments.icecube.sources.geometry import direction
from hpcreco.experiments.icecube.sources.point import PointSource
from hpcreco.experiments.icecube.trafo import Transformation

_LOG = logging.getLogger(__name__)
_BEYOND = 700.0  # m: a cascade with a coordinate above gives no light
_TAPER = 20.0  # m below it over which its light fades
_LARGEST_LOG = 40.0  # of ln(1 + E)


class RowSettings(Strict):
    """nearest_cascades: every DOM sees only so many cascades, those next to it; null sees all, which is exact."""

    nearest_cascades: int | None = Field(default=None, ge=1)


class CascadesInARow(ConfiguredSource):
    """A source upon one base, which must be called `cascade` and be a cascade; it is evaluated N times.

    Further parameters of the base (systematics) are common to all cascades and stand behind the others.
    """

    Settings = RowSettings

    def __init__(
        self,
        config: Mapping[str, Any],
        detector: Detector,
        trafo: Transformation | None = None,
        bases: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__(config, detector, trafo, bases)
        if set(bases or {}) != {"cascade"}:
            raise SourceError(
                f"{type(self).__name__} needs exactly one of multi_source_bases, called cascade; "
                f"found: {', '.join(bases or {}) or 'none'}"
            )
        self.bases = nn.ModuleDict(bases)
        base = self.bases["cascade"]
        if base.parameter_names[: len(CASCADE)] != CASCADE:
            raise SourceError(
                f"{type(self).__name__}: its base should have the parameters {', '.join(CASCADE)}, "
                f"{type(base).__name__} has {', '.join(base.parameter_names)}"
            )
        if self.settings.nearest_cascades is not None and not isinstance(base, PointSource):
            raise SourceError(f"nearest_cascades works upon single cascades, not upon {type(base).__name__}")
        self.further = base.parameter_names[len(CASCADE) :]
        self.limit = max(_BEYOND, 1.2 * detector.radius, 1.2 * detector.half_height)

    @abstractmethod
    def cascades(self, parameters: Tensor) -> Tensor:
        """(K, n, p) parameters -> (N, K, n, 7) cascades."""

    def expect(self, parameters: Tensor, data: Observation) -> Expectation:
        """See `Source`."""
        return self._expect(self._all(parameters), data)

    def parts(self, parameters: Tensor, data: Observation) -> Iterator[tuple[str, Expectation]]:
        """Every cascade, by ``cascade_<number>``."""
        for i, cascade in enumerate(self._all(parameters)):
            yield f"cascade_{i:05d}", self._expect(cascade[None], data)

    def _all(self, parameters: Tensor) -> Tensor:
        """(N, K, n, 7 + further) parameters of the base."""
        found = self.cascades(parameters)
        *rest, energy, time = found.split([3, 2, 1, 1], dim=-1)
        energy = energy.clamp_min(0.0) * within(rest[0], self.limit)[..., None]
        further = parameters[..., parameters.shape[-1] - len(self.further) :]
        return torch.cat([*rest, energy, time, further.expand(*found.shape[:-1], -1)], -1)

    def _expect(self, cascades: Tensor, data: Observation) -> Expectation:
        flat, base = cascades.flatten(0, 1), self.bases["cascade"]
        if self.settings.nearest_cascades is None:
            return base.expect(flat, data)
        return base.expect(flat, data, nearest=self.settings.nearest_cascades)


class StartingSettings(RowSettings):
    """num_cascades: N, the first included."""

    num_cascades: int = Field(ge=1)


class StartingVariableMultiCascadeModel(CascadesInARow):
    """A first cascade and N − 1 along its direction, each with an energy and a distance (m) from the first.

    x, y, z, zenith, azimuth, energy, time, then ``cascade_00001_energy``, ``cascade_00001_distance``, ...
    """

    Settings = StartingSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        more = [
            f"cascade_{i:05d}_{what}"
            for i in range(1, self.settings.num_cascades)
            for what in ("energy", "distance")
        ]
        self.parameter_names = (*CASCADE, *more, *self.further)

    def cascades(self, parameters: Tensor) -> Tensor:
        """(K, n, p) parameters -> (N, K, n, 7) cascades."""
        n = self.settings.num_cascades
        first = parameters[..., :7]
        more = parameters[..., 7 : 7 + 2 * (n - 1)].unflatten(-1, (n - 1, 2)).movedim(-2, 0)
        zero = torch.zeros_like(first[None, ..., :1])
        energy = torch.cat([first[None, ..., 5:6], more[..., :1]])
        distance = torch.cat([zero, more[..., 1:]])
        return _along(first, distance, energy)


class TrackSettings(RowSettings):
    """Cascades `cascade_spacing` m apart, from where the track enters a cylinder of `cylinder_radius` and height
    2 `cylinder_extension`, m. energies_per_group: so many neighbours share one energy parameter.
    """

    max_num_cascades: int = Field(ge=1)
    cascade_spacing: float = Field(gt=0)
    cylinder_radius: float = Field(gt=0)
    cylinder_extension: float = Field(gt=0)
    energies_per_group: int = Field(default=1, ge=1)


class TrackEquidistantCascadeModel(CascadesInARow):
    """anchor_x, anchor_y, anchor_z, zenith, azimuth, anchor_time, then ``cascade_00000_energy``, ... of N cascades."""

    Settings = TrackSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        s: TrackSettings = self.settings
        self.cylinder = Cylinder(s.cylinder_radius, s.cylinder_extension)
        fitting = max(1, int(2.0 * math.hypot(s.cylinder_radius, s.cylinder_extension) / s.cascade_spacing))
        self.n_cascades = min(s.max_num_cascades, fitting)
        if s.max_num_cascades > fitting:
            _LOG.warning(
                "max_num_cascades %d: no more than %d fit into the cylinder", s.max_num_cascades, fitting
            )
        self.n_energies = math.ceil(self.n_cascades / s.energies_per_group)
        energies = [f"cascade_{i:05d}_energy" for i in range(self.n_energies)]
        self.parameter_names = (
            "anchor_x",
            "anchor_y",
            "anchor_z",
            "zenith",
            "azimuth",
            "anchor_time",
            *energies,
            *self.further,
        )

    def cascades(self, parameters: Tensor) -> Tensor:
        """(K, n, p) parameters -> (N, K, n, 7) cascades."""
        s: TrackSettings = self.settings
        anchor, time = parameters[..., :3], parameters[..., 5]
        entry = self.cylinder.entry(anchor, direction(parameters[..., 3], parameters[..., 4]))
        nearest = self.cylinder.nearest(anchor, direction(parameters[..., 3], parameters[..., 4]))
        begin = torch.where(
            torch.isfinite(entry), entry, nearest - 0.5 * s.cascade_spacing * (self.n_cascades - 1)
        )
        number = torch.arange(self.n_cascades, device=parameters.device)
        distance = begin + (number.to(begin) + 0.5)[:, None, None] * s.cascade_spacing
        energy = parameters[..., 6 : 6 + self.n_energies].movedim(-1, 0)[number // s.energies_per_group]
        first = torch.cat([parameters[..., :5], energy[0, ..., None], time[..., None]], -1)
        return _along(first, distance[..., None], energy[..., None])

    @classmethod
    def inherited(cls, config: Mapping[str, Any], base: str, trafo: Transformation) -> Transformation:
        """The anchor's position and time, and the first energy, under a cascade's names."""
        renamed = {"x": "anchor_x", "y": "anchor_y", "z": "anchor_z", "time": "anchor_time"}
        renamed["energy"] = "cascade_00000_energy"
        if not set(renamed.values()) <= set(trafo.names):
            return trafo
        others = [name for name in trafo.names if name not in renamed.values()]
        return trafo.select([*renamed.values(), *others], [*renamed, *others])


class MultiSettings(RowSettings):
    """num_cascades: N, spread evenly over `length` m along the track, around its point nearest to the origin."""

    num_cascades: int = Field(ge=1)
    length: float = Field(default=1000.0, gt=0)


class DefaultMultiCascadeModel(CascadesInARow):
    """x, y, z, zenith, azimuth, time of a point of a track, then ``cascade_0000_log_energy``, ...: ln(1 + E / GeV)."""

    Settings = MultiSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        energies = [f"cascade_{i:04d}_log_energy" for i in range(self.settings.num_cascades)]
        self.parameter_names = (*CASCADE[:5], "time", *energies, *self.further)

    def cascades(self, parameters: Tensor) -> Tensor:
        """(K, n, p) parameters -> (N, K, n, 7) cascades."""
        s: MultiSettings = self.settings
        u = direction(parameters[..., 3], parameters[..., 4])
        nearest = -(parameters[..., :3] * u).sum(-1)
        half = s.length / 2 if s.num_cascades > 1 else 0.0
        steps = torch.linspace(-half, half, s.num_cascades, dtype=u.dtype, device=u.device)
        distance = nearest + steps[:, None, None]
        energy = torch.expm1(parameters[..., 6 : 6 + s.num_cascades].clamp_max(_LARGEST_LOG)).movedim(-1, 0)
        first = torch.cat([parameters[..., :5], energy[0, ..., None], parameters[..., 5:6]], -1)
        return _along(first, distance[..., None], energy[..., None])

    @classmethod
    def inherited(cls, config: Mapping[str, Any], base: str, trafo: Transformation) -> Transformation:
        """The first cascade's ln(1 + E) is what a cascade's transformation takes of its energy."""
        log_energy = "cascade_0000_log_energy"
        if log_energy not in trafo.names:
            return trafo
        others = [name for name in trafo.names if name != log_energy]
        found = trafo.select([log_energy, *others], ["energy", *others])
        return replace(found, log=np.array([True, *found.log[1:]]))


def _along(first: Tensor, distance: Tensor, energy: Tensor) -> Tensor:
    """(N, K, n, 7) cascades of energy (N, K, n, 1), distance (N, K, n, 1) m along the flight from first (K, n, 7)."""
    u = direction(first[..., 3], first[..., 4])
    where = first[..., :3] + distance * u
    time = first[..., 6:7] + distance / SPEED_OF_LIGHT
    return torch.cat([where, first[..., 3:5].expand(*where.shape[:-1], 2), energy, time], -1)


def within(position: Tensor, limit: float) -> Tensor:
    """(...) 1 for positions (..., 3) inside, 0 for those with a coordinate beyond `limit` m, smooth between."""
    x = ((limit - position.abs()) / _TAPER).clamp(0.0, 1.0)
    return (x * x * (3.0 - 2.0 * x)).prod(-1)
