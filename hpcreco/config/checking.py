"""From a plain mapping to a typed section, with errors that name the key and what it may have been meant to be."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcreco.config.errors import ConfigError, nearest

LOG = logging.getLogger("hpcreco")


class Strict(BaseModel):
    """A config section in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _keys_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Field names allowed beside the last element of a validation error's location."""
    current: Any = model
    for part in location[:-1]:
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            continue
        annotation = fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return list(getattr(current, "model_fields", {}))


def build(model: type[BaseModel], raw: Mapping[str, Any], where: str = "", lenient: bool = False) -> Any:
    """`raw` as a `model`; every problem is listed with its key, and an unknown key with its nearest valid one.

    lenient: unknown keys are left out with a warning.
    """
    while True:
        try:
            return model.model_validate(dict(raw))
        except ValidationError as error:
            unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
            if not (lenient and unknown):
                raise ConfigError("; ".join(_problems(model, error, where))) from error
            for location in unknown:
                LOG.warning("%s: unknown key, left out", _key(where, location))
                raw = _without(raw, location)


def _problems(model: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    problems = []
    for item in error.errors():
        key = _key(where, item["loc"])
        if item["type"] == "extra_forbidden":
            close = nearest(str(item["loc"][-1]), _keys_at(model, item["loc"]))
            problems.append(f"{key}: unknown key" + (f"; did you mean {close!r}?" if close else ""))
        elif not item["loc"]:  # keys that do not go together; the message names them
            problems.append(f"{where}: " * bool(where) + item["msg"].removeprefix("Value error, "))
        else:
            problems.append(f"{key}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})")
    return problems


def _key(where: str, location: Sequence[Any]) -> str:
    return ".".join([*([where] if where else []), *(str(part) for part in location)])


def _without(raw: Any, location: Sequence[Any]) -> Any:
    head, *rest = location
    if isinstance(raw, list):
        return [_without(item, rest) if number == head else item for number, item in enumerate(raw)]
    if not rest:
        return {key: value for key, value in raw.items() if key != head}
    return {key: _without(value, rest) if key == head else value for key, value in raw.items()}
