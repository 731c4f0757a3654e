"""What reconstructs: a likelihood with all that belongs to it, from an export, a trained run, or the truth.

A fit in ten lines::

    import torch
    from hpcreco.experiments.icecube.reconstruct import api

    model = api.load("export")
    data, known = api.events("pulses-00000.h5", [0])    # one event
    data = data.to(dtype=torch.float64)
    fit = api.fit(model.likelihood, data, model.seed_from_data(data), model.space())
    print(dict(zip(model.names, fit.parameters[0].tolist())))
    times = torch.linspace(9000.0, 12000.0, 200)
    density = model.pdf(fit.parameters, data, times, doms=[35])   # (1, 1, 200) 1/ns
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube import components, hypothesis
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.likelihood import Likelihood
from hpcreco.experiments.icecube.reconstruct import seeds
from hpcreco.experiments.icecube.reconstruct.space import Space
from hpcreco.experiments.icecube.settings import LossTerm, Settings, settings_of
from hpcreco.experiments.icecube.sources import inspect
from hpcreco.experiments.icecube.sources.contract import Observation
from hpcreco.experiments.icecube.sources.truth import model_settings
from hpcreco.experiments.icecube.trafo import Transformation

#: of a component that stands alone; an export's config says what its model was trained with
DEFAULT_TERMS = tuple(
    LossTerm(function=name) for name in ("unbinned_pulse_time_llh", "negative_binomial_charge_pdf")
)


class ModelError(ValueError):
    """What is named is no model that can reconstruct."""

    exit_code = 2


@dataclass(frozen=True)
class Model:
    """A likelihood of events of one detector.

    trafo: scales of the parameters. mapping: role (x, ..., time) -> parameter, where the names do not say it.
    raw_settings: `reconstruction_settings` that came with it. digest: of weights and loss.
    """

    likelihood: Likelihood
    detector: Detector
    trafo: Transformation
    digest: str
    where: str
    mapping: Mapping[str, str] = field(default_factory=dict)
    raw_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return self.likelihood.parameter_names

    def space(
        self,
        fixed: Sequence[str] = (),
        boundaries: Mapping[str, tuple[float, float]] | None = None,
        scaled: bool = True,
        priors: Mapping[str, tuple[float, float]] | None = None,
    ) -> Space:
        """The coordinates to fit in."""
        trafo = self.trafo if scaled else None
        return Space.of(self.names, trafo, fixed=fixed, boundaries=boundaries, priors=priors)

    def seed_from_data(self, data: Observation, missing: Mapping[str, float] | None = None) -> Tensor:
        """(n, p) start values from the pulses alone, see `seeds.from_data`."""
        return seeds.from_data(
            data,
            torch.as_tensor(self.detector.flat_positions, device=data.window.device).to(data.window.dtype),
            self.names,
            self.likelihood,
            expected_charge=self.expected_charge,
            mapping=self.mapping,
            missing_by_name=missing,
        )

    def expected_charge(self, parameters: Tensor, data: Observation) -> Tensor:
        """(n,) PE on usable DOMs, mean of an ensemble."""
        charges = [(e.charge * data.usable).sum(1) for e in self.likelihood.expect(parameters, data)]
        return torch.stack(charges).mean(0)

    def by_dom(self, parameters: Tensor, data: Observation) -> Tensor:
        """(n, 1 + M) independent parts of the loss: what events have as a whole, and each DOM's."""
        event, doms = self.likelihood.by_dom(parameters, data)
        return torch.cat([event[:, None], doms], 1)

    def pit(self, parameters: Tensor, data: Observation) -> Tensor:
        """(P,) expected fraction of its DOM's light that comes before each pulse."""
        with torch.no_grad():
            return self.likelihood.expect(parameters, data)[0].pulse_cdf(data)

    def draw(self, parameters: Tensor, data: Observation, rng: np.random.Generator) -> Observation:
        """Events drawn from hypotheses (n, p), with the windows, gaps and usable DOMs of `data`.

        Of an ensemble the first model draws.
        """
        return inspect.sample(self.likelihood.source, parameters, data, rng)

    def pdf(self, parameters: Tensor, data: Observation, times: Tensor, doms: Sequence[int]) -> Tensor:
        """(n, D, T) densities at `times` (T,) ns at some DOMs, 1/ns, see `sources.inspect`."""
        return inspect.pdf(self.likelihood.source, parameters, data, times, doms)

    def cdf(self, parameters: Tensor, data: Observation, times: Tensor, doms: Sequence[int]) -> Tensor:
        """(n, D, T) fractions of each DOM's charge before `times`."""
        return inspect.cdf(self.likelihood.source, parameters, data, times, doms)

    def light(
        self, parameters: Tensor, times: np.ndarray, dom: int, window: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """By part of the hypothesis and for their `sum`: expected PE per ns at `times` (T,), and expected PE."""
        nothing = parameters.new_zeros(0)
        data = Observation(
            nothing, nothing, nothing.long(), nothing.long(), parameters.new_tensor(window)[None],
            nothing, nothing, nothing.long(), nothing.long(),
            torch.ones(1, self.detector.n_doms, dtype=torch.bool, device=parameters.device),
        )  # fmt: skip
        source, at = self.likelihood.source, torch.as_tensor(times).to(parameters)
        found = inspect.rates(source, parameters, data, at, [dom])
        rates = {name: rate[0, 0].cpu().numpy() for name, rate in found.items()}
        with torch.no_grad():
            parts = {name or "all": e for name, e in source.parts(parameters[None], data)}
        charges = {name: float(e.charge[0, dom]) for name, e in parts.items()}
        whole = np.sum(list(rates.values()), axis=0), sum(charges.values())
        return {"sum": whole[0], **rates}, {"sum": whole[1], **charges}

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Model:
        """The same on another device and in another precision (the likelihood itself is moved)."""
        self.likelihood.to(device=device, dtype=dtype)
        return self


def standard_trafo(names: Sequence[str]) -> Transformation:
    """Scales for hypotheses that came without: about the widths of events in a detector of a cubic kilometre."""
    widths = {"x": 200.0, "y": 200.0, "z": 200.0, "zenith": 0.7, "azimuth": 1.8, "time": 300.0, "energy": 2.0}
    kinds = [name.rpartition("_")[2] for name in names]
    log = [kind == "energy" for kind in kinds]
    return Transformation(
        tuple(names),
        np.array([8.0 if flag else 0.0 for flag in log]),
        np.array([widths.get(kind, 100.0) for kind in kinds]),
        np.array(log),
    )


def digest_of(content: Mapping[str, Any]) -> str:
    """sha256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def truth(detector: Detector, generator: Mapping[str, Any] | None = None) -> Model:
    """The likelihood that simulated events were drawn from; `generator` is that attribute of their shard.

    Events that were not simulated get the default ice: a smoke test, not physics.
    """
    made = generator or {}
    settings = model_settings(
        _several(made.get("hypothesis", {})),
        ice=made.get("ice", "default"),
        systematics=made.get("systematics", 0.0),
    )
    source = hypothesis.build(settings, detector)
    digest = digest_of({"truth": settings, "detector": detector.sha256})
    trafo = standard_trafo(source.parameter_names)
    return Model(Likelihood(source, DEFAULT_TERMS), detector, trafo, digest, "truth")


def _several(simulated: Mapping[str, Any]) -> dict[str, Any] | None:
    """The multi-source that several simulated cascades are drawn from; None for one."""
    kind = simulated.get("kind", "cascade")
    if kind == "cascades":
        config = {"num_cascades": simulated["n_cascades"]}
        return {"model_class": "StartingVariableMultiCascadeModel", "config": config}
    if kind == "track":
        config = {
            "max_num_cascades": simulated["n_cascades"],
            "cascade_spacing": simulated["spacing"],
            "cylinder_radius": simulated["cylinder_radius"],
            "cylinder_extension": simulated["cylinder_half_height"],
        }
        return {"model_class": "TrackEquidistantCascadeModel", "config": config}
    return None


def exported(folder: Path, detector: Detector | None = None) -> Model:
    """The model of an export, an ensemble if it holds several, or of any one component's folder."""
    members = sorted(folder.glob("models_[0-9][0-9][0-9][0-9]")) or [folder]
    sources = [components.load(member, detector) for member in members]
    digests = [components.configuration(member)["digest"] for member in members]
    config = folder / "reco_config.yaml"
    terms, raw, mapping = DEFAULT_TERMS, {}, {}
    if config.is_file():
        settings = _settings_in(config)
        terms, raw, mapping = settings.losses, settings.reconstruction, settings.particle
    names = sources[0].parameter_names
    content = {"models": digests, "terms": _plain_terms(terms)}
    return Model(
        Likelihood(sources, terms),
        sources[0].detector,
        sources[0].trafo or standard_trafo(names),
        digest_of(content),
        str(folder),
        mapping,
        raw,
    )


def _settings_in(path: Path) -> Settings:
    from hpcreco import config
    from hpcreco.experiments.icecube import dialect

    return settings_of(dialect.normalise(config.load(str(path)), True))


def trained(text: str, detector: Detector | None = None) -> Model:
    """The model of a training as its last checkpoint has it; `text` is its config."""
    from hpcreco import config
    from hpcreco.experiments.icecube import dialect, task
    from hpcreco.train import checkpoint

    run = dialect.normalise(config.load(text), True)
    latest = checkpoint.load_latest(run.output_dir)
    if latest is None:
        raise ModelError(f"{checkpoint.folder(run.output_dir)} holds no checkpoint; train {text} first")
    network = task.build_model(run)
    checkpoint.load_into(network, latest[1]["model"], source=str(latest[0].path))
    likelihood, settings = network.eval().likelihood, settings_of(run)
    source = likelihood.source
    if detector is not None and source.detector.sha256 != detector.sha256:
        raise ModelError(f"{text} was trained for another detector than the events'")
    return Model(
        likelihood,
        source.detector,
        source.trafo or standard_trafo(source.parameter_names),
        digest_of({"weights": checkpoint.digest(latest[1]["model"]), "terms": _plain_terms(settings.losses)}),
        str(latest[0].path),
        settings.particle,
        settings.reconstruction,
    )


def _plain_terms(terms: Sequence[LossTerm]) -> list[dict[str, Any]]:
    return [term.model_dump() for term in terms]


def find(text: str, detector: Detector | None, generator: Mapping[str, Any] | None = None) -> Model:
    """The model that `text` names, for events of `detector`: "truth", the folder of an export, or a config."""
    if text == "truth":
        if detector is None:
            raise ModelError("the truth is a model of any detector: name yours")
        return truth(detector, generator)
    return exported(Path(text), detector) if Path(text).is_dir() else trained(text, detector)
