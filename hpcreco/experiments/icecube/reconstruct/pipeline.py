"""All that is done to a batch of events, in order: prepare, seed, fit, and what the settings ask for beyond."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.reconstruct import goodness, seeds, skyscan
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.by_scipy import ScipyMinimiser
from hpcreco.experiments.icecube.reconstruct.by_spherical import SphericalMinimiser
from hpcreco.experiments.icecube.reconstruct.circular import circularised
from hpcreco.experiments.icecube.reconstruct.covariance import angular_error, covariances, physical
from hpcreco.experiments.icecube.reconstruct.fit import AnyMinimiser, Fit, fit
from hpcreco.experiments.icecube.reconstruct.model import Model
from hpcreco.experiments.icecube.reconstruct.objective import Objective
from hpcreco.experiments.icecube.reconstruct.prepare import Preparation
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.settings import DATA, TRUTH, ReconstructionSettings
from hpcreco.experiments.icecube.reconstruct.single import Rows, Single
from hpcreco.experiments.icecube.reconstruct.space import directions
from hpcreco.experiments.icecube.reconstruct.tables import PIT_BINS
from hpcreco.experiments.icecube.sources.contract import Observation


@dataclass(frozen=True)
class Given:
    """What is known of n events besides their pulses: seeds and truth as (values (n, q), column names)."""

    seeds: Mapping[str, tuple[np.ndarray, Sequence[str]]]
    truth: tuple[np.ndarray, Sequence[str]] | None = None
    numbers: tuple[int, ...] = ()  # of the events, for what is random


class Reconstruction:
    """A model with settings, ready for batches of events. sky: who fits the pixels of sky scans."""

    def __init__(
        self, model: Model, settings: ReconstructionSettings, sky: skyscan.Answer | None = None
    ) -> None:
        self.settings = settings
        self.dtype = getattr(torch, settings.float_precision)
        device = next((p.device for p in model.likelihood.parameters()), torch.device("cpu"))
        self.model = model.to(device, self.dtype)
        self.device = device
        self.space = model.space(
            settings.fixed(model.names),
            settings.parameter_boundaries,
            settings.minimize_in_trafo_space,
            settings.parameter_priors,
        )
        for parameter in model.likelihood.parameters():
            parameter.requires_grad_(False)
        self._single = Single(model.likelihood, self.space, settings, self.batched, sky)

    @property
    def minimiser(self) -> AnyMinimiser:
        """The one that the settings name; the original's TensorFlow minimiser is the batched one."""
        if self.settings.reco_optimizer_interface == "scipy":
            chosen = self.settings.scipy_optimizer_settings
            return ScipyMinimiser(chosen.method, chosen.options, chosen.tol)
        if self.settings.reco_optimizer_interface == "spherical_opt":
            return SphericalMinimiser(**self.settings.spherical_optimizer_settings.model_dump())
        return self.batched

    @property
    def batched(self) -> Minimiser:
        """The one for fits that exist only in batches: scans, circularised errors."""
        return Minimiser(**self.settings.batched_optimizer_settings.model_dump())

    def __call__(self, data: Observation, given: Given) -> list[Rows]:
        """The rows of the tables of every event."""
        data = Preparation(**self.settings.preparation.model_dump())(data.to(self.device, self.dtype))
        truth = self._truth(data, given)
        found = fit(self.model.likelihood, data, self.seeds(data, given, truth), self.space, self.minimiser)
        rows: list[Rows] = [{} for _ in range(data.n_events)]
        _add(rows, "fit", self._fit_rows(data, found, truth))
        _add(rows, "pit", self._pit_rows(data, found, truth))
        covariance = self._covariances(data, found, rows)
        self._direction(data, found, covariance, rows)
        if self.settings.calculate_goodness_of_fit:
            self._goodness(data, found, covariance, rows, given)
        for event in range(data.n_events):
            one = take(data, torch.tensor([event], device=self.device))
            matrix = covariance["hessian"][event] if "hessian" in covariance else None
            number = given.numbers[event] if given.numbers else event
            best = found.parameters[event]
            rows[event] |= self._single(one, best, matrix, number, self._centres(given, event))
        return rows

    def seeds(self, data: Observation, given: Given, truth: Tensor | None) -> list[Tensor]:
        """(n, p) start values of every fit, in the order of `seed_labels`."""
        made = []
        for name in self.settings.seed:
            seed = self._seed(name, data, given, truth)
            made.append(seed)
            generator = torch.Generator().manual_seed(sum(given.numbers) % 2**31)
            made += seeds.randomised(
                seed, self.space, self.settings.random_seeds, self.settings.random_width, generator
            )
        return made

    @property
    def seed_labels(self) -> tuple[str, ...]:
        """What `fit/chosen` counts through."""
        more = self.settings.random_seeds
        return tuple(
            label
            for name in self.settings.seed
            for label in (name, *(f"{name} randomised {k + 1}" for k in range(more)))
        )

    def _seed(self, name: str, data: Observation, given: Given, truth: Tensor | None) -> Tensor:
        if name == DATA:
            return self.model.seed_from_data(data, self.settings.seed_missing_value_dict)
        if name == TRUTH:
            if truth is None or not bool(torch.isfinite(truth).all()):
                raise seeds.SeedError("the seed is the truth, which these events lack; choose another seed")
            return truth
        if name not in given.seeds:
            known = ", ".join((*given.seeds, DATA, TRUTH))
            raise seeds.SeedError(f"the events have no seed {name!r}; there are {known}")
        values, columns = given.seeds[name]
        return seeds.from_columns(
            values,
            columns,
            self.model.names,
            mapping=self.model.mapping,
            missing=self.settings.seed_missing_value,
            missing_by_name=self.settings.seed_missing_value_dict,
        ).to(self.device, self.dtype)

    def _truth(self, data: Observation, given: Given) -> Tensor | None:
        if given.truth is None:
            return None
        values, columns = given.truth
        found = seeds.from_columns(
            values, columns, self.model.names, mapping=self.model.mapping, missing=math.nan
        )
        return None if not bool(torch.isfinite(found).any()) else found.to(self.device, self.dtype)

    def _fit_rows(self, data: Observation, found: Fit, truth: Tensor | None) -> dict[str, Tensor]:
        charge = data.dom_charge * data.usable
        rows = {
            "parameters": found.parameters,
            "seed": found.seed,
            "loss": found.loss,
            "seed_loss": found.seed_loss,
            "converged": found.converged.to(torch.int8),
            "evaluations": found.evaluations.to(torch.int32),
            "seconds": found.seconds.float(),
            "chosen": found.chosen.to(torch.int16),
            "charge": charge.sum(1).float(),
            "pulses": torch.bincount(data.event, minlength=data.n_events).to(torch.int32),
            "doms": (charge > 0).sum(1).to(torch.int32),
        }
        if truth is not None:
            objective = Objective(self.model.likelihood, data, self.space, torch.nan_to_num(truth))
            with torch.no_grad():
                loss = objective.loss(self.space.coordinates(torch.nan_to_num(truth)))
            known = torch.isfinite(truth).all(1)
            rows |= {"truth": truth, "truth_loss": torch.where(known, loss, torch.nan)}
        return rows

    def _pit_rows(self, data: Observation, found: Fit, truth: Tensor | None) -> dict[str, Tensor]:
        rows = {"best": self._pit(data, found.parameters)}
        if truth is not None and bool(torch.isfinite(truth).all()):
            rows["truth"] = self._pit(data, truth)
        return rows

    def _pit(self, data: Observation, parameters: Tensor) -> Tensor:
        """(n, PIT_BINS) charge of usable DOMs by the expected fraction of light before it."""
        value = torch.nan_to_num(self.model.pit(parameters, data))
        bins = (value * PIT_BINS).long().clamp(0, PIT_BINS - 1)
        weight = torch.where(data.usable[data.event, data.dom], data.charge, 0.0)
        flat = torch.zeros(data.n_events * PIT_BINS, dtype=weight.dtype, device=weight.device)
        flat.index_add_(0, data.event * PIT_BINS + bins, weight)
        return flat.reshape(-1, PIT_BINS).float()

    def _covariances(self, data: Observation, found: Fit, rows: list[Rows]) -> dict[str, Tensor]:
        """In coordinates; in physical units in the rows."""
        if not self.settings.calculate_covariance_matrix:
            return {}
        objective = Objective(self.model.likelihood, data, self.space, found.parameters)
        made = covariances(
            objective,
            self.space.coordinates(found.parameters),
            self.model.likelihood.independent,
            found.inverse_hessian,
        )
        flat = {name: physical(c, self.space, found.parameters).flatten(1) for name, c in made.items()}
        _add(rows, "covariance", flat)
        return made

    def _direction(
        self, data: Observation, found: Fit, covariance: Mapping[str, Tensor], rows: list[Rows]
    ) -> None:
        pair = next((p for p in directions(self.space.names) if set(p) <= set(self.space.free)), None)
        made, scale = {}, None
        if pair is None:
            return
        if "hessian" in covariance:
            matrix = physical(covariance["hessian"], self.space, found.parameters)
            made["from_covariance"] = angular_error(matrix, self.space, found.parameters, pair)
            scale = 2 * torch.nan_to_num(made["from_covariance"], nan=math.pi / 4).clamp_min(1e-4)
        if self.settings.estimate_angular_uncertainty:
            made["circular"] = circularised(
                self.model.likelihood, data, found.parameters, found.loss, self.space,
                minimiser=self.batched, scale=scale, generator=torch.Generator().manual_seed(0),
            )  # fmt: skip
        if made:
            _add(rows, "direction", made)

    def _goodness(
        self, data: Observation, found: Fit, covariance: Mapping[str, Tensor], rows: list[Rows], given: Given
    ) -> None:
        chosen = self.settings.goodness_of_fit
        generator = torch.Generator().manual_seed(sum(given.numbers) % 2**31)
        rng = np.random.default_rng(list(given.numbers))
        result = goodness.goodness(
            self.model.likelihood,
            lambda parameters, like: self.model.draw(parameters, like, rng),
            data,
            found.parameters,
            found.loss,
            self.space,
            samples=chosen.samples,
            covariance=covariance.get("hessian") if chosen.from_covariance else None,
            refit=self.batched if chosen.refit else None,
            terms=self.model.by_dom,
            generator=generator,
        )
        made = {"one_sided": result.one_sided, "two_sided": result.two_sided}
        if result.bias is not None and result.width is not None:
            made |= {"bias": result.bias, "width": result.width}
        _add(rows, "goodness", made)
        lit = (data.dom_charge > 0) & data.usable
        for event, row in enumerate(rows):
            doms = torch.nonzero(lit[event])[:, 0]
            values = result.terms[event, doms + 1]  # the first column is of the whole event
            row["goodness_doms"] = {"dom": _plain(doms.to(torch.int32)), "one_sided": _plain(values.float())}

    def _centres(self, given: Given, event: int) -> list[tuple[float, float]]:
        """Zenith and azimuth of the seeds that a sky scan looks around."""
        found = []
        for name in self.settings.skyscan.centres:
            if name in given.seeds:
                values, columns = given.seeds[name]
                zenith, azimuth = (
                    float(values[event, list(columns).index(c)]) for c in ("zenith", "azimuth")
                )
                if math.isfinite(zenith) and math.isfinite(azimuth):
                    found.append((zenith, azimuth))
        return found


def _plain(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _add(rows: list[Rows], table: str, fields: Mapping[str, Tensor]) -> None:
    """One row per event of a table that has one."""
    for name, tensor in fields.items():
        for row, value in zip(rows, _plain(tensor), strict=True):
            row.setdefault(table, {})[name] = value
