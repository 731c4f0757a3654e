"""The coordinates that a minimiser moves: the free parameters, scaled to comparable size.

`parameters` are physical (m, rad, GeV, ns). `coordinates` are the free ones in the space of a transformation (zero
mean, unit width, ln(1 + E) for energies) or, without one, the free parameters themselves. A direction that leaves its
range is the same direction seen from the other side: it is reflected, so that no wall stops the minimiser at a pole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hpcreco.experiments.icecube.trafo import Transformation


class SpaceError(ValueError):
    """A parameter is named that the hypothesis does not have, or a boundary makes no sense."""

    exit_code = 2


@dataclass(frozen=True)
class Space:
    """Which parameters are free, in which scale, where they are penalised, and what else is known of them.

    free: numbers of the free parameters. boundaries: parameter -> (low, high) in physical units; outside, a penalty
    grows steeply. priors: parameter -> (mean, width) of a normal distribution, such as of a systematic uncertainty.
    """

    names: tuple[str, ...]
    free: tuple[int, ...]
    trafo: Transformation | None = None
    boundaries: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    priors: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        trafo: Transformation | None = None,
        *,
        fixed: Sequence[str] = (),
        boundaries: Mapping[str, tuple[float, float]] | None = None,
        priors: Mapping[str, tuple[float, float]] | None = None,
    ) -> Space:
        """A space by parameter names; `SpaceError` for names the hypothesis lacks."""
        boundaries, priors = dict(boundaries or {}), dict(priors or {})
        unknown = sorted({*fixed, *boundaries, *priors} - set(names))
        if unknown:
            raise SpaceError(f"the hypothesis has no parameter {unknown[0]!r}; it has: {', '.join(names)}")
        wrong = [name for name, (low, high) in boundaries.items() if not low < high]
        if wrong:
            raise SpaceError(f"boundaries of {wrong[0]}: {boundaries[wrong[0]]} should be (low, high)")
        flat = [name for name, (_, width) in priors.items() if not width > 0]
        if flat:
            raise SpaceError(f"prior of {flat[0]}: {priors[flat[0]]} should be (mean, width > 0)")
        free = tuple(i for i, name in enumerate(names) if name not in set(fixed))
        return cls(tuple(names), free, trafo, boundaries, priors)

    @property
    def n_free(self) -> int:
        """Number of coordinates."""
        return len(self.free)

    @property
    def free_names(self) -> tuple[str, ...]:
        """Names of the free parameters, in the order of the coordinates."""
        return tuple(self.names[i] for i in self.free)

    def without(self, *fixed: str) -> Space:
        """The same space with more parameters fixed."""
        also = tuple(name for i, name in enumerate(self.names) if i not in self.free)
        known = {"boundaries": self.boundaries, "priors": self.priors}
        return Space.of(self.names, self.trafo, fixed=(*also, *fixed), **known)

    def coordinates(self, parameters: Tensor) -> Tensor:
        """(n, p) parameters -> (n, k) coordinates."""
        scaled = parameters if self.trafo is None else self.trafo.transform(self._above(parameters))
        return scaled[:, list(self.free)]

    def parameters(self, coordinates: Tensor, anchor: Tensor) -> Tensor:
        """(n, k) coordinates -> (n, p) parameters; what is fixed is taken from `anchor` (n, p). Differentiable."""
        index = torch.tensor(self.free, dtype=torch.int64, device=anchor.device)
        if self.trafo is None:
            moved = coordinates
        else:
            whole = self.trafo.transform(self._above(anchor)).index_copy(1, index, coordinates)
            moved = self.trafo.inverse(whole)[:, index]
        return self._reflected(anchor.index_copy(1, index, moved))

    def derivative(self, parameters: Tensor) -> Tensor:
        """(n, k) of d parameter / d coordinate at `parameters` (n, p)."""
        columns = list(self.free)
        if self.trafo is None:
            return torch.ones_like(parameters[:, columns])
        return 1.0 / self.trafo.jacobian(self._above(parameters))[:, columns]

    def log_factor(self, parameters: Tensor) -> Tensor:
        """(n, k) of what turns a parameter's uncertainty into that of ln(1 + parameter), or 1 for those not in ln."""
        columns = list(self.free)
        factor = torch.ones_like(parameters)
        if self.trafo is not None:
            log = torch.as_tensor(self.trafo.log, device=parameters.device, dtype=torch.bool)
            factor = torch.where(log, 1.0 / (1.0 + self._above(parameters)), factor)
        return factor[:, columns]

    def _above(self, parameters: Tensor) -> Tensor:
        """The same, what is taken as ln(1 + x) kept above -1: a cascade without light may drift there in a fit."""
        if self.trafo is None:
            return parameters
        log = torch.as_tensor(self.trafo.log, device=parameters.device, dtype=torch.bool)
        least = torch.finfo(parameters.dtype).eps * 4 - 1.0
        return torch.where(log, parameters.clamp_min(least), parameters)

    def _reflected(self, parameters: Tensor) -> Tensor:
        columns = list(parameters.unbind(1))
        for zenith, azimuth in directions(self.names):
            if zenith not in self.free and azimuth not in self.free:
                continue
            turns = torch.remainder(columns[zenith], 2 * math.pi)
            back = turns > math.pi
            columns[zenith] = torch.where(back, 2 * math.pi - turns, turns)
            columns[azimuth] = torch.remainder(columns[azimuth] + math.pi * back, 2 * math.pi)
        return torch.stack(columns, 1)

    def penalty(self, parameters: Tensor) -> Tensor:
        """(n,) 0 inside the boundaries; outside e^10 (e^v - 1 - v), v = 10 excess / width, summed over parameters;
        and half the squared pulls of priors.

        Without the linear term the wall would have a kink at its foot, where quasi-Newton methods get stuck.
        """
        total = parameters.new_zeros(len(parameters))
        for name, (low, high) in self.boundaries.items():
            value = parameters[:, self.names.index(name)]
            excess = (low - value).clamp_min(0) + (value - high).clamp_min(0)
            v = (10 * excess / (high - low)).clamp_max(40.0)
            total = total + math.exp(10) * (torch.expm1(v) - v)
        for name, (mean, width) in self.priors.items():
            total = total + 0.5 * ((parameters[:, self.names.index(name)] - mean) / width) ** 2
        return total

    def box(self, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """(n, k) lower and upper ends of the coordinates, infinite where there is no boundary."""
        low, high = torch.full_like(anchor, -math.inf), torch.full_like(anchor, math.inf)
        ends = anchor.clone(), anchor.clone()
        for name, edges in self.boundaries.items():
            column = self.names.index(name)
            for end, edge in zip(ends, edges, strict=True):
                end[:, column] = edge
        inner = self.coordinates(ends[0]), self.coordinates(ends[1])
        low, high = low[:, list(self.free)], high[:, list(self.free)]
        for k, name in enumerate(self.free_names):
            if name in self.boundaries:
                low[:, k], high[:, k] = inner[0][:, k], inner[1][:, k]
        return low, high


def directions(names: Sequence[str]) -> list[tuple[int, int]]:
    """Numbers of the parameters that are the zenith and azimuth of one direction."""
    found = []
    for i, name in enumerate(names):
        if name.endswith("zenith"):
            partner = f"{name[: -len('zenith')]}azimuth"
            if partner in names:
                found.append((i, list(names).index(partner)))
    return found
