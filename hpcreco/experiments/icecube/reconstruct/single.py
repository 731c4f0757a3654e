"""What is done to events one by one: sky scan, posterior samples, scans of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct import chains, scans, skyscan, spherical_fits
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings
from hpcreco.experiments.icecube.reconstruct.space import Space, directions
from hpcreco.experiments.icecube.reconstruct.tables import SPHERE
from hpcreco.experiments.icecube.sources.contract import Observation

#: fields by table of one event
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Single:
    """Ready for events. sky: who fits the pixels of a sky scan."""

    likelihood: Likelihood
    space: Space
    settings: ReconstructionSettings
    minimiser: Minimiser
    sky: skyscan.Answer | None = None

    def __call__(
        self,
        data: Observation,
        best: Tensor,
        covariance: Tensor | None,
        number: int,
        centres: Sequence[tuple[float, float]],
    ) -> Rows:
        """Rows of the event `number`, alone in `data`, with its best parameters (p,).

        covariance: (k, k) in coordinates. centres: (zenith, azimuth) that the sky scan looks around besides the best.
        """
        made: Rows = {}
        if self.settings.make_skyscan:
            made["sky"] = self._sky(data, best, centres)
        if self.settings.run_mcmc:
            made |= self._chain(data, best, covariance, number)
        if self.settings.make_1d_llh_scans:
            made["scan"] = self._scan(data, best, covariance)
        return made

    def _sky(self, data: Observation, best: Tensor, centres: Sequence[tuple[float, float]]) -> dict[str, Any]:
        zenith, azimuth = best[list(directions(self.space.names)[0])].tolist()
        own = [(zenith, azimuth)] if math.isfinite(zenith) and math.isfinite(azimuth) else []
        scanned = skyscan.scan(
            self.likelihood, data, best, self.space, nside=self.settings.skyscan.nside,
            rings=self.settings.skyscan.rings, centres=[*own, *centres], minimiser=self.minimiser, answer=self.sky,
        )  # fmt: skip
        return {
            "nside": scanned.nside.astype(np.int32),
            "pixel": scanned.pixel,
            "loss": scanned.loss,
            "parameters": scanned.parameters,
        }

    def _chain(self, data: Observation, best: Tensor, covariance: Tensor | None, number: int) -> Rows:
        wanted = chains.Sampling(**self.settings.mcmc.model_dump())
        chain = chains.sample(
            self.likelihood, data, best, self.space, settings=wanted, covariance=covariance, seed=number
        )
        made: Rows = {"chain": {"parameters": chain.parameters, "loss": chain.loss}}
        pair = next((p for p in directions(self.space.names) if set(p) <= set(self.space.free)), None)
        if pair is not None:
            made["sphere"] = on_the_sphere(chain.parameters[:, pair[0]], chain.parameters[:, pair[1]])
        return made

    def _scan(self, data: Observation, best: Tensor, covariance: Tensor | None) -> dict[str, Any]:
        chosen = self.settings.llh_scans
        reach: float | Tensor = chosen.reach
        if covariance is not None and chosen.sigmas is not None:
            widths = chosen.sigmas * covariance.diagonal().clamp_min(0).sqrt()
            reach = torch.where(torch.isfinite(widths) & (widths > 0), widths, reach)
        line = scans.scan(
            self.likelihood, data, best, self.space, points=chosen.points, reach=reach,
            others=chosen.others, minimiser=self.minimiser,
        )  # fmt: skip
        return {
            "parameter": line.parameter.astype(np.int32),
            "value": line.value.astype(np.float64),
            "loss": line.loss.astype(np.float64),
        }


def on_the_sphere(zenith: np.ndarray, azimuth: np.ndarray) -> dict[str, np.ndarray]:
    """The distributions of `spherical_fits` for sampled directions (n,); NaN where one cannot be fitted."""
    x = spherical_fits.vectors(zenith, azimuth)
    made, densities = {}, []
    for kind, fit in spherical_fits.FITS.items():
        try:
            found = fit(x)
        except (ArithmeticError, ValueError, np.linalg.LinAlgError):
            made[kind] = np.full(len(SPHERE[kind]), np.nan)
            densities.append(np.nan)
            continue
        made[kind] = np.array([found.values[name] for name in SPHERE[kind]])
        densities.append(float(found.log_density(x).mean()))
    return made | {"log_density": np.array(densities)}
