"""Sources that do not know of each other: their light adds up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hpcreco.config import Strict
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource, SourceError
from hpcreco.experiments.icecube.sources.contract import Expectation, Observation, Source
from hpcreco.experiments.icecube.trafo import Transformation


class IndependentSettings(Strict):
    """sources: name of a source -> the base that it is one of; several may be of one base and share its weights."""

    sources: dict[str, str] = Field(min_length=1)


class IndependentMultiSource(ConfiguredSource):
    """Parameters ``<source>_<parameter of its base>``, the sources in alphabetical order."""

    Settings = IndependentSettings

    def __init__(
        self,
        config: Mapping[str, Any],
        detector: Detector,
        trafo: Transformation | None = None,
        bases: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__(config, detector, trafo, bases)
        bases = bases or {}
        self.sources: dict[str, str] = dict(sorted(self.settings.sources.items()))
        unknown = sorted(set(self.sources.values()) - set(bases))
        unused = sorted(set(bases) - set(self.sources.values()))
        if unknown:
            raise SourceError(
                f"sources name a base {unknown[0]!r} that multi_source_bases lacks; it has {', '.join(bases) or 'none'}"
            )
        if unused:
            raise SourceError(
                f"multi_source_bases has {unused[0]!r}, which no source is of; remove one or add the other"
            )
        self.bases = nn.ModuleDict(bases)
        self.blocks: dict[str, slice] = {}
        names: list[str] = []
        for source, base in self.sources.items():
            inner = self.bases[base].parameter_names
            self.blocks[source] = slice(len(names), len(names) + len(inner))
            names += [f"{source}_{name}" for name in inner]
        self.parameter_names = tuple(names)

    def expect(self, parameters: Tensor, data: Observation) -> Expectation:
        """See `Source`. Sources of one base are evaluated together."""
        found = []
        for name, base in self.bases.items():
            of_base = [self.blocks[source] for source, its in self.sources.items() if its == name]
            found.append(base.expect(torch.cat([parameters[..., block] for block in of_base]), data))
        return reduce(add, found)

    def parts(self, parameters: Tensor, data: Observation) -> Iterator[tuple[str, Expectation]]:
        """The expectation of every source, by ``source`` or ``source/inner``."""
        for source, base in self.sources.items():
            for inner, found in self.bases[base].parts(parameters[..., self.blocks[source]], data):
                yield f"{source}/{inner}" if inner else source, found

    @classmethod
    def inherited(cls, config: Mapping[str, Any], base: str, trafo: Transformation) -> Transformation:
        """The parameters of the first source that is of this base, without the source's name before them."""
        of_base = sorted(source for source, its in config.get("sources", {}).items() if its == base)
        prefix = f"{of_base[0]}_" if of_base else ""
        names = [name for name in trafo.names if name.startswith(prefix)]
        # a transformation may come from a sub-model, whose parameters have no prefix
        return trafo.select(names, [name.removeprefix(prefix) for name in names]) if names else trafo
