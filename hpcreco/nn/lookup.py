"""Classes by name, as configs give them: of torch, of hpcreco, or ``module:Class`` of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from hpcreco.config import ConfigError, nearest
from hpcreco.experiment import ExperimentError, load


def find(name: str, known: Mapping[str, Any], where: str, hints: Mapping[str, str] | None = None) -> Any:
    """The entry `name` of `known`, or the object that ``module:Name`` says.

    `where` is the config key for errors; `hints` gives the remedy for names that once existed. Raises
    ConfigError.
    """
    if name in known:
        return known[name]
    if ":" in name:
        try:
            return load(name)
        except ExperimentError as error:
            raise ConfigError(f"{where}: {error}") from error
    if hints and name in hints:
        raise ConfigError(f"{where}: {name}: {hints[name]}")
    close = nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    raise ConfigError(f"{where}: there is no {name!r}{hint} (your own: module:Class)")


def public_classes(module: Any, base: type, without: Iterable[str] = ()) -> dict[str, Any]:
    """Name -> class for the public subclasses of `base` in `module`, `base` itself and `without` left out."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value is not base
        and not name.startswith("_")
        and name not in without
    }


def make(made: Any, arguments: Mapping[str, Any], where: str, *given: Any) -> Any:
    """Call `made(*given, **arguments)`; an argument it does not take is a ConfigError."""
    parameters = inspect.signature(made).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        open_to = list(parameters)[len(given) :]
        for name in arguments:
            if name not in open_to:
                close = nearest(name, open_to)
                hint = (
                    f"; did you mean {close!r}?"
                    if close
                    else f"; it takes {', '.join(open_to) or 'no arguments'}"
                )
                raise ConfigError(f"{where}.{name}: {made.__name__} has no such argument{hint}")
    try:
        return made(*given, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {made.__name__}: {error}") from error
