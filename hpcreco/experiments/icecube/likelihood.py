"""-ln L of events as a function of their parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpcreco.config import ConfigError
from hpcreco.experiments.icecube import losses
from hpcreco.experiments.icecube.settings import LossTerm
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source


class Likelihood(nn.Module):
    """The losses of one source, or of an ensemble of them with the same parameters, whose losses add up."""

    def __init__(self, sources: Source | Sequence[Source], terms: Sequence[LossTerm]) -> None:
        super().__init__()
        self.sources = nn.ModuleList([sources] if isinstance(sources, Source) else sources)
        self.terms = tuple(terms)
        for number, source in enumerate(self.sources):
            if source.parameter_names != self.parameter_names:  # type: ignore[comparison-overlap]
                raise ConfigError(
                    f"the models of an ensemble have other parameters: number {number} has "
                    f"{', '.join(source.parameter_names)}, the first {', '.join(self.parameter_names)}"  # type: ignore[arg-type]
                )
        for term in self.terms:
            if term.is_prior:  # names that do not exist should fail here
                losses.prior(term, torch.zeros(1, len(self.parameter_names)), self.parameter_names)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Of the last axis of `parameters`."""
        names: tuple[str, ...] = self.sources[0].parameter_names  # type: ignore[assignment]
        return names

    @property
    def source(self) -> Source:
        """The only source, or the first."""
        first = self.sources[0]
        assert isinstance(first, Source)
        return first

    def expect(self, parameters: Tensor, data: Observation) -> list[Expectation]:
        """What each source of the ensemble expects of events with parameters (n, p)."""
        return [source.expect(parameters[None], data) for source in self.sources]  # type: ignore[operator]

    def by_term(
        self, parameters: Tensor, data: Observation, expectations: Sequence[Expectation] | None = None
    ) -> dict[str, Tensor]:
        """(n,) by name of the term, priors included; `expectations` of `expect`, where they are known already."""
        total: dict[str, Tensor] = {}
        for expectation in expectations or self.expect(parameters, data):
            for name, value in losses.terms(self.terms, expectation, data).items():
                total[name] = total[name] + value if name in total else value
        for name, term in losses.names(self.terms).items():
            if term.is_prior:
                total[name] = losses.prior(term, parameters, self.parameter_names)
        return total

    def by_dom(self, parameters: Tensor, data: Observation) -> tuple[Tensor, Tensor]:
        """(n,) what only whole events have, priors included, and (n, M) the rest, DOM by DOM."""
        pulse, dom, event = self._parts(parameters, data)
        return event, dom + losses.at_doms(pulse, data)

    def independent(self, parameters: Tensor, data: Observation) -> tuple[Tensor, Tensor]:
        """(R,) parts of the loss whose fluctuations are independent, and the event of each, int64.

        Given its DOM's charge, the time of a pulse does not depend on the others: a row is a pulse, a DOM's charge,
        or what only whole events have.
        """
        pulse, dom, event = self._parts(parameters, data)
        number = torch.arange(len(dom), device=dom.device)
        owner = torch.cat([data.event, number.repeat_interleave(dom.shape[1]), number])
        return torch.cat([pulse, dom.reshape(-1), event]), owner

    def _parts(self, parameters: Tensor, data: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Pulses (P,), DOMs (n, M) and events (n,), summed over the ensemble; priors are with the events."""
        found = [losses.parts(self.terms, e, data) for e in self.expect(parameters, data)]
        pulse, dom, event = (
            torch.stack([getattr(part, name) for part in found]).sum(0) for name in ("pulse", "dom", "event")
        )
        for term in self.terms:
            if term.is_prior:
                event = event + losses.prior(term, parameters, self.parameter_names)
        return pulse, dom, event

    def forward(self, parameters: Tensor, data: Observation) -> Tensor:
        """(n,) loss of each event with parameters (n, p), differentiable; events do not influence each other."""
        return torch.stack(list(self.by_term(parameters, data).values())).sum(0)
