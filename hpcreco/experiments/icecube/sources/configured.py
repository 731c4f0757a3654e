"""What the sources that are named in a config have in common: how they are made."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

from hpcreco.config import ConfigError, Strict
from hpcreco.config import build as validated
from hpcreco.experiments.icecube import aliases
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.sources.contract import Source
from hpcreco.experiments.icecube.trafo import Transformation


class SourceError(ValueError):
    """A hypothesis that makes no sense."""

    exit_code = 2


class Nothing(Strict):
    """Settings of a source that has none."""


class ConfiguredSource(Source):
    """A source made from its `config`, for a detector, with a transformation, and upon other sources (`bases`).

    `Settings` says which keys the config may have; `settings` holds them, with their defaults.
    """

    Settings: ClassVar[type[Strict]] = Nothing

    def __init__(
        self,
        config: Mapping[str, Any],
        detector: Detector,
        trafo: Transformation | None = None,
        bases: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__()
        self.config = dict(config)
        self.settings: Any = validated(self.Settings, self.config, f"{type(self).__name__}.config")
        self.detector = detector
        self.trafo = trafo

    @classmethod
    def inherited(cls, config: Mapping[str, Any], base: str, trafo: Transformation) -> Transformation:
        """What a base without its own transformation gets: `trafo`, the parameters named as the base names them."""
        return trafo


def resolve(text: str, where: str = "model_class") -> type[ConfiguredSource]:
    """The class that a config names. Raises ConfigError naming the known ones."""
    name = aliases.source(text, where)
    module, _, cls = aliases.SOURCES.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {text!r} cannot be imported: {error}") from error
    return found
