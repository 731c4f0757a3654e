"""Tracks made of cascades: equidistant ones, and those that lie along a track that shines by itself."""

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
from torch import Tensor

from hpcreco.experiments.icecube.sources.cascade import CASCADE
from hpcreco.experiments.icecube.sources.cascades import CascadesInARow, RowSettings, along
from hpcreco.experiments.icecube.sources.configured import SourceError
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation
from hpcreco.experiments.icecube.sources.crossing import Cylinder
from hpcreco.experiments.icecube.sources.geometry import direction
from hpcreco.experiments.icecube.sources.segment import StochasticTrackSegment
from hpcreco.experiments.icecube.sources.sphere import EnteringSphereInfTrack
from hpcreco.experiments.icecube.trafo import Transformation

_LOG = logging.getLogger(__name__)
_LARGEST_LOG = 40.0  # of ln(1 + E)


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
        return along(first, distance[..., None], energy[..., None])

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
        return along(first, distance[..., None], energy[..., None])

    @classmethod
    def inherited(cls, config: Mapping[str, Any], base: str, trafo: Transformation) -> Transformation:
        """The first cascade's ln(1 + E) is what a cascade's transformation takes of its energy."""
        log_energy = "cascade_0000_log_energy"
        if log_energy not in trafo.names:
            return trafo
        others = [name for name in trafo.names if name != log_energy]
        found = trafo.select([log_energy, *others], ["energy", *others])
        return replace(found, log=np.array([True, *found.log[1:]]))


class _UponATrack(CascadesInARow):
    """Cascades along a track of the kind `track_class`, whose parameters come first."""

    needs = ("cascade", "track")
    track_class: type[StochasticTrackSegment] | type[EnteringSphereInfTrack]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        track = self.bases["track"]
        if not isinstance(track, self.track_class) or track.parameter_names != self.track_class.physical:
            raise SourceError(
                f"{type(self).__name__}: its base track should be a {self.track_class.__name__} with the parameters "
                f"{', '.join(self.track_class.physical)}; it is a {type(track).__name__} with "
                f"{', '.join(track.parameter_names)}"
            )
        self.n_track = len(track.parameter_names)
        self.parameter_names = (*track.parameter_names, *self.losses(), *self.further)

    @abstractmethod
    def losses(self) -> list[str]:
        """Names of the cascades' parameters."""

    def expect(self, parameters: Tensor, data: Observation) -> Expectation:
        """See `Source`."""
        return super().expect(parameters, data) + self._track(parameters, data)

    def parts(self, parameters: Tensor, data: Observation) -> Iterator[tuple[str, Expectation]]:
        """The track, and every cascade."""
        yield "track", self._track(parameters, data)
        yield from super().parts(parameters, data)

    def _track(self, parameters: Tensor, data: Observation) -> Expectation:
        return self.bases["track"].expect(parameters[..., : self.n_track], data)


class StochasticSettings(RowSettings):
    """num_cascades: along the segment."""

    num_cascades: int = Field(ge=1)


class StochasticTrackModel(_UponATrack):
    """A `StochasticTrackSegment` and N cascades on its line: ``cascade_00000_energy``, ``cascade_00000_distance`` (m
    from where it begins), ...
    """

    Settings = StochasticSettings
    track_class = StochasticTrackSegment

    def losses(self) -> list[str]:
        """See `_UponATrack`."""
        count: int = self.settings.num_cascades
        return [f"cascade_{i:05d}_{what}" for i in range(count) for what in ("energy", "distance")]

    def cascades(self, parameters: Tensor) -> Tensor:
        """(K, n, p) parameters -> (N, K, n, 7) cascades."""
        count: int = self.settings.num_cascades
        more = parameters[..., self.n_track : self.n_track + 2 * count].unflatten(-1, (count, 2))
        more = more.movedim(-2, 0)
        return along(parameters[..., :7], more[..., 1:], more[..., :1])


class SphereRowSettings(RowSettings):
    """Cascades `cascade_spacing` m apart along the diameter of the track's sphere. nearest_cascades: see `RowSettings`;
    5 unless said otherwise.
    """

    cascade_spacing: float = Field(gt=0)
    nearest_cascades: int | None = Field(default=5, ge=1)


class EnteringSphereInfTrackMultiCascade(_UponATrack):
    """An `EnteringSphereInfTrack` and its losses ``energy_loss_0000``, ..., each in the middle of one spacing."""

    Settings = SphereRowSettings
    track_class = EnteringSphereInfTrack

    def losses(self) -> list[str]:
        """See `_UponATrack`."""
        track = self.bases["track"]
        assert isinstance(track, EnteringSphereInfTrack)
        self.radius = float(track.settings.sphere_radius)
        self.count = max(1, int(2 * self.radius / self.settings.cascade_spacing))
        return [f"energy_loss_{i:04d}" for i in range(self.count)]

    def cascades(self, parameters: Tensor) -> Tensor:
        """(K, n, p) parameters -> (N, K, n, 7) cascades."""
        entry = -self.radius * direction(parameters[..., 0], parameters[..., 1])
        energy = parameters[..., self.n_track : self.n_track + self.count].movedim(-1, 0)[..., None]
        number = torch.arange(self.count, device=parameters.device).to(parameters)
        distance = ((number + 0.5) * self.settings.cascade_spacing)[:, None, None, None].expand_as(energy)
        first = torch.cat([entry, parameters[..., 4:6], energy[0], parameters[..., 2:3]], -1)
        return along(first, distance, energy)
