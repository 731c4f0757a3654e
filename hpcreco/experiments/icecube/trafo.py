"""Parameters of a hypothesis to numbers around 0 of width 1, and back.

y = (g(x) − mean) / (ε + std), where g(x) = ln(1 + x) for parameters marked `log` and x for the others. Mean and width
come from the training events (`Moments`), in float64, and do not depend on how many ranks read them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcreco import shards
from hpcreco.collective import Alone, Collective

TRAFO = shards.Schema(
    "hpcreco/icecube/trafo",
    1,
    attributes=(
        shards.Attribute("names", "json"),
        shards.Attribute("epsilon", "float"),
        shards.Attribute("n_events", "int", required=False),
        shards.Attribute("sources", "json", required=False, volatile=True),
    ),
)
FILE = "trafo.h5"  # of the artefact, where a folder is named
_LARGEST = 60.0  # |argument| of exp in `inverse`


class TrafoError(ValueError):
    """Values that cannot be transformed, or a transformation that does not fit the hypothesis."""

    exit_code = 2


@dataclass(frozen=True, eq=False)
class Transformation:
    """names of the p parameters; mean, std (p,) float64 of g(x); log (p,) bool; epsilon is added to std."""

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    log: np.ndarray
    epsilon: float = 1e-6
    _cache: dict[Any, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        for name, dtype in (("mean", np.float64), ("std", np.float64), ("log", np.bool_)):
            array = np.array(getattr(self, name), dtype)
            if array.shape != (len(self.names),):
                raise TrafoError(f"{name} has shape {array.shape}, there are {len(self.names)} parameters")
            object.__setattr__(self, name, array)

    @classmethod
    def identity(cls, names: Sequence[str]) -> Transformation:
        """Every parameter is its own coordinate."""
        n = len(names)
        return cls(tuple(names), np.zeros(n), np.ones(n), np.zeros(n, bool), 0.0)

    def transform(self, x: Tensor) -> Tensor:
        """(..., p) parameters -> (..., p) coordinates. Raises TrafoError where ln(1 + x) does not exist."""
        mean, scale, log = self._on(x)
        self._refuse_logarithms(x, log)
        return (torch.where(log, torch.log1p(torch.where(log, x, 0.0)), x) - mean) / scale

    def inverse(self, y: Tensor) -> Tensor:
        """(..., p) coordinates -> (..., p) parameters."""
        mean, scale, log = self._on(y)
        value = y * scale + mean
        return torch.where(log, torch.expm1(torch.where(log, value, 0.0).clamp(-_LARGEST, _LARGEST)), value)

    def jacobian(self, x: Tensor) -> Tensor:
        """(..., p) dy/dx, which is diagonal: 1 / ((ε + std)(1 + x)) for logarithms, 1 / (ε + std) for others."""
        _, scale, log = self._on(x)
        return 1.0 / (scale * torch.where(log, 1.0 + x, 1.0))

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """(...,) ln |det dy/dx|: what a density in x has more than the density in y."""
        return self.jacobian(x).abs().log().sum(-1)

    def covariance(self, covariance: Tensor, x: Tensor, log_units: bool = False) -> Tensor:
        """(..., p, p) covariance of the coordinates -> that of the parameters at x (..., p), to first order.

        log_units: of ln(1 + x) where the transformation takes logarithms, else of x.
        """
        _, scale, log = self._on(x)
        factor = scale.expand(x.shape) if log_units else scale * torch.where(log, 1.0 + x, 1.0)
        return covariance * factor[..., :, None] * factor[..., None, :]

    def select(self, names: Sequence[str], rename: Sequence[str] | None = None) -> Transformation:
        """The transformation of some of the parameters, called `rename` from then on."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise TrafoError(
                f"the transformation has no parameter {missing[0]!r}; it has {', '.join(self.names)}. "
                "Make it from data with this hypothesis's parameters"
            )
        rows = [self.names.index(name) for name in names]
        return Transformation(
            tuple(rename or names), self.mean[rows], self.std[rows], self.log[rows], self.epsilon
        )

    def _on(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mean, ε + std and log on the device of `like`, in its precision."""
        if like.shape[-1] != len(self.names):
            raise TrafoError(f"{like.shape[-1]} parameters, the transformation has {len(self.names)}")
        key = (like.device, like.dtype)
        if key not in self._cache:
            self._cache[key] = (
                torch.as_tensor(self.mean, dtype=like.dtype, device=like.device),
                torch.as_tensor(self.epsilon + self.std, dtype=like.dtype, device=like.device),
                torch.as_tensor(self.log, device=like.device),
            )
        return self._cache[key]

    def _refuse_logarithms(self, x: Tensor, log: Tensor) -> None:
        wrong = (log & (x <= -1.0)).reshape(-1, len(self.names)).any(0)
        if wrong.any():
            name = self.names[int(wrong.nonzero()[0])]
            raise TrafoError(
                f"{name} is -1 or less, ln(1 + {name}) does not exist; check the data or the seed"
            )


class Moments:
    """Mean and width of g(x) over a stream of events, the same to rounding however the events are split."""

    def __init__(self, log: Sequence[bool], names: Sequence[str]) -> None:
        self.names, self.log = tuple(names), np.array(log, bool)
        if self.log.shape != (len(self.names),):
            raise TrafoError(f"{self.log.size} flags `log` for {len(self.names)} parameters")
        self.count = 0
        self.skipped = 0  # events with a value that is not finite
        self.mean = np.zeros(len(self.names))
        self.m2 = np.zeros(len(self.names))

    def add(self, x: np.ndarray) -> None:
        """Count the events of x (b, p). Events with NaN or infinities are counted as `skipped` only."""
        x = np.asarray(x, np.float64)
        finite = np.isfinite(x).all(1)
        self.skipped += int((~finite).sum())
        x = x[finite]
        if not len(x):
            return
        low = self.log & (x <= -1.0).any(0)
        if low.any():
            name = self.names[int(np.flatnonzero(low)[0])]
            raise TrafoError(f"{name} is -1 or less in the data, ln(1 + {name}) does not exist")
        g = np.where(self.log, np.log1p(np.where(self.log, x, 0.0)), x)
        mean = g.mean(0)
        self._join(len(g), mean, ((g - mean) ** 2).sum(0))

    def combined(self, collective: Collective) -> Moments:
        """Those of the events of all ranks, on every rank."""
        everyone = collective.broadcast(collective.gather((self.count, self.skipped, self.mean, self.m2)))
        total = Moments(self.log, self.names)
        for count, skipped, mean, m2 in everyone:
            total.skipped += skipped
            if count:
                total._join(count, mean, m2)
        return total

    def transformation(self, epsilon: float = 1e-6) -> Transformation:
        """Population widths (ddof 0); a constant parameter has width 1."""
        if not self.count:
            raise TrafoError("no event with finite parameters: nothing to take means of")
        std = np.sqrt(self.m2 / self.count)
        # what rounding leaves of the width of a constant
        constant = std <= 1e-12 * np.abs(self.mean)
        return Transformation(self.names, self.mean, np.where(constant, 1.0, std), self.log, epsilon)

    def _join(self, count: int, mean: np.ndarray, m2: np.ndarray) -> None:
        """Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances"."""
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta**2 * (self.count * count / total)
        self.count = total


def fit(
    stream: Iterable[np.ndarray],
    names: Sequence[str],
    log: Sequence[bool],
    epsilon: float = 1e-6,
    collective: Collective | None = None,
) -> tuple[Transformation, Moments]:
    """The transformation of a stream of arrays (b, p), each rank with its own, and the moments of all of them."""
    moments = Moments(log, names)
    for x in stream:
        moments.add(x)
    moments = moments.combined(Alone() if collective is None else collective)
    return moments.transformation(epsilon), moments


def write(
    path: str | os.PathLike[str],
    trafo: Transformation,
    n_events: int | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Write the artefact; returns its content digest."""
    attributes = {
        "names": list(trafo.names),
        "epsilon": trafo.epsilon,
        "n_events": n_events,
        "sources": None if provenance is None else dict(provenance),
    }
    arrays = {"mean": trafo.mean, "std": trafo.std, "log": trafo.log}
    return shards.write_artefact(path, TRAFO, attributes, arrays)


def read(path: str | os.PathLike[str]) -> Transformation:
    """The transformation of an artefact, or of the one in a folder.

    Raises TrafoError where there is none, ShardError for a file that is damaged or something else.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise TrafoError(f"{path}: no transformation; make it with `hpcreco icecube trafo CONFIG`")
    artefact = shards.read_artefact(path, TRAFO)
    arrays = artefact.arrays
    return Transformation(
        tuple(artefact.attributes["names"]),
        arrays["mean"],
        arrays["std"],
        arrays["log"],
        artefact.attributes["epsilon"],
    )
