"""From `model_settings`, nested to any depth, to a source.

::

    model_settings:
      model_class: IndependentMultiSource
      config: {sources: {noise: noise, cascade: cascade}}
      data_trafo_settings: {model_dir: ...}   # a transformation of its own; else that of the level above
      multi_source_bases:
        noise: {model_class: DefaultNoiseModel, config: {}}
        cascade: {load_dir: export/models_0000/cascade, trainable: false}

A base with `load_dir` is loaded with its weights and its own transformation; it is frozen unless `trainable: true`.
`freeze` and `unfreeze` are lists of patterns (``cascade.network.layers.0.*``) of weights below that level.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import nn

from hpcreco.config import ConfigError, nearest
from hpcreco.experiments.icecube import components
from hpcreco.experiments.icecube import trafo as trafos
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource, resolve
from hpcreco.experiments.icecube.sources.contract import Source
from hpcreco.experiments.icecube.trafo import Transformation

_LOG = logging.getLogger(__name__)
_KEYS = (
    "model_class",
    "config",
    "load_dir",
    "data_trafo_settings",
    "decoder_settings",
    "decoder_charge_settings",
    "multi_source_bases",
    "trainable",
    "freeze",
    "unfreeze",
)
#: classes of the original package whose times count from the vertex, where hpcreco's own default is better
_ORIGINAL = "egenerator."

OpenBase = Callable[[str], Source]
OpenTrafo = Callable[[str], Transformation]


def build(
    model_settings: Mapping[str, Any],
    detector: Detector,
    trafo: Transformation | None = None,
    *,
    open_base: OpenBase | None = None,
    open_trafo: OpenTrafo | None = None,
    where: str = "model_settings",
) -> Source:
    """The source that `model_settings` describe.

    trafo: of the whole hypothesis's parameters. open_base, open_trafo: what loads a `load_dir` and a `model_dir`; by
    default they are paths. Raises ConfigError, SourceError or TrafoError.
    """
    builder = _Builder(detector, open_base or _opener(detector), open_trafo or trafos.read)
    return builder.build(model_settings, trafo, {}, where)


class _Builder:
    def __init__(self, detector: Detector, open_base: OpenBase, open_trafo: OpenTrafo) -> None:
        self.detector, self.open_base, self.open_trafo = detector, open_base, open_trafo

    def build(
        self, settings: Mapping[str, Any], trafo: Transformation | None, above: Mapping[str, Any], where: str
    ) -> Source:
        """One level; `above` has the decoder settings of the level above."""
        _check_keys(settings, where)
        if settings.get("load_dir"):
            source = self._loaded(settings, where)
        else:
            source = self._new(settings, trafo, {**above, **_decoders(settings)}, where)
        trainable = settings.get("trainable")
        if trainable is False or (trainable is None and settings.get("load_dir")):
            source.requires_grad_(False)
        freeze(source, settings.get("freeze") or (), settings.get("unfreeze") or (), where)
        return source

    def _loaded(self, settings: Mapping[str, Any], where: str) -> Source:
        source = self.open_base(str(settings["load_dir"]))
        wanted = settings.get("model_class")
        if wanted and not isinstance(source, resolve(wanted, f"{where}.model_class")):
            raise ConfigError(
                f"{where}.load_dir: {settings['load_dir']} is a {type(source).__name__}, model_class says {wanted}"
            )
        _report_differences(source, settings.get("config") or {}, where)
        return source

    def _new(
        self,
        settings: Mapping[str, Any],
        trafo: Transformation | None,
        decoders: Mapping[str, Any],
        where: str,
    ) -> Source:
        if not settings.get("model_class"):
            raise ConfigError(f"{where}: model_class is missing (or load_dir, for a model that exists)")
        cls = resolve(settings["model_class"], f"{where}.model_class")
        folder = (settings.get("data_trafo_settings") or {}).get("model_dir")
        if folder:
            trafo = self.open_trafo(str(folder))
        config = _completed(cls, settings, decoders)
        bases = {}
        for name, inner in (settings.get("multi_source_bases") or {}).items():
            given = None if trafo is None else cls.inherited(config, name, trafo)
            bases[name] = self.build(inner, given, decoders, f"{where}.multi_source_bases.{name}")
        try:
            return cls(config, self.detector, trafo, bases)
        except ValueError as error:
            error.args = (f"{where}: {error}",)
            raise


def freeze(source: nn.Module, frozen: Iterable[str], free: Iterable[str] = (), where: str = "") -> None:
    """Weights that match a pattern of `frozen` are not trained, then those of `free` are.

    Raises ConfigError for a pattern that matches none.
    """
    named = {name.replace("bases.", ""): parameter for name, parameter in source.named_parameters()}
    for patterns, trained in ((frozen, False), (free, True)):
        for pattern in patterns:
            found = [
                p for name, p in named.items() if fnmatch(name, pattern) or name.startswith(f"{pattern}.")
            ]
            if not found:
                raise ConfigError(
                    f"{where}: no weight matches {pattern!r}; there are {', '.join(named) or 'none'}"
                )
            for parameter in found:
                parameter.requires_grad_(trained)


def _opener(detector: Detector) -> OpenBase:
    def load(folder: str) -> Source:
        return components.load(Path(folder), detector)

    return load


def _check_keys(settings: Mapping[str, Any], where: str) -> None:
    unknown = next((key for key in settings if key not in _KEYS), None)
    if unknown is not None:
        close = nearest(unknown, _KEYS)
        raise ConfigError(f"{where}.{unknown}: unknown key" + (f"; did you mean {close!r}?" if close else ""))


def _decoders(settings: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("decoder_settings", "decoder_charge_settings")
    return {key: settings[key] for key in keys if settings.get(key)}


def _completed(
    cls: type[ConfiguredSource], settings: Mapping[str, Any], decoders: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of a class, with what the level above and its origin decide."""
    config = dict(settings.get("config") or {})
    fields = cls.Settings.model_fields
    for decoder in decoders.values():
        config = {**{key: value for key, value in decoder.items() if key in fields}, **config}
    if "time_reference" in fields and str(settings["model_class"]).startswith(_ORIGINAL):
        config.setdefault("time_reference", "vertex")
    return config


def _report_differences(source: Source, config: Mapping[str, Any], where: str) -> None:
    """A loaded source is what it was saved as; the config says it was meant otherwise."""
    if not isinstance(source, ConfiguredSource):
        return
    saved = source.settings.model_dump()
    for key, value in config.items():
        if key in saved and _plain(value) != _plain(saved[key]):
            _LOG.warning("%s.config.%s is %s, the model in load_dir has %s", where, key, value, saved[key])


def _plain(value: Any) -> Any:
    """Tuples as lists, at any depth; no activation is an empty one."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return "" if value is None else value
