"""Many cascades in a row: what is fitted are a few common parameters and every cascade's energy. See also `tracks`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hpcreco.config import Strict
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.light import SPEED_OF_LIGHT
from hpcreco.experiments.icecube.sources.cascade import CASCADE
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource, SourceError
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source
from hpcreco.experiments.icecube.sources.geometry import direction
from hpcreco.experiments.icecube.sources.point import PointSource
from hpcreco.experiments.icecube.trafo import Transformation

_BEYOND = 700.0  # m: a cascade with a coordinate above gives no light
_TAPER = 20.0  # m below it over which its light fades


class RowSettings(Strict):
    """nearest_cascades: every DOM sees only so many cascades, those next to it; null sees all, which is exact."""

    nearest_cascades: int | None = Field(default=None, ge=1)


class CascadesInARow(ConfiguredSource):
    """A source upon one base, which must be called `cascade` and be a cascade; it is evaluated N times.

    needs: names of the bases. Further parameters of the base (systematics) are common to all cascades and stand behind
    the others.
    """

    Settings = RowSettings
    needs: ClassVar[tuple[str, ...]] = ("cascade",)

    def __init__(
        self,
        config: Mapping[str, Any],
        detector: Detector,
        trafo: Transformation | None = None,
        bases: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__(config, detector, trafo, bases)
        if set(bases or {}) != set(self.needs):
            count = "one" if len(self.needs) == 1 else "two"
            raise SourceError(
                f"{type(self).__name__} needs exactly {count} of multi_source_bases, called "
                f"{' and '.join(self.needs)}; found: {', '.join(bases or {}) or 'none'}"
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
        return along(first, distance, energy)


def along(first: Tensor, distance: Tensor, energy: Tensor) -> Tensor:
    """(N, K, n, 7) cascades of energy (N, K, n, 1), distance (N, K, n, 1) m along the flight from first (K, n, 7)."""
    u = direction(first[..., 3], first[..., 4])
    where = first[..., :3] + distance * u
    time = first[..., 6:7] + distance / SPEED_OF_LIGHT
    return torch.cat([where, first[..., 3:5].expand(*where.shape[:-1], 2), energy, time], -1)


def within(position: Tensor, limit: float) -> Tensor:
    """(...) 1 for positions (..., 3) inside, 0 for those with a coordinate beyond `limit` m, smooth between."""
    x = ((limit - position.abs()) / _TAPER).clamp(0.0, 1.0)
    return (x * x * (3.0 - 2.0 * x)).prod(-1)
