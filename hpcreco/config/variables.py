"""Variables in the texts of a config: its own keys and the environment's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from hpcreco.config.errors import ConfigError

_ENVIRONMENT = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}")


def expand(raw: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Replace ``{key}`` by the top-level scalar `key`, and ``$NAME`` or ``${NAME}`` by the environment's."""
    scalars = {key: str(value) for key, value in raw.items() if isinstance(value, (str, int, float))}

    def text(value: str, where: str) -> str:
        def environment(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in environ:
                raise ConfigError(
                    f"{where}: the environment variable {name} is not set; export {name}=... or give --set {where}=..."
                )
            return environ[name]

        for _ in range(8):  # a placeholder may stand for text with a placeholder
            replaced = _PLACEHOLDER.sub(lambda m: scalars.get(m[1], m[0]), value)
            if replaced == value:
                break
            value = replaced
        return _ENVIRONMENT.sub(environment, value)

    def walk(value: Any, where: str) -> Any:
        if isinstance(value, str):
            return text(value, where)
        if isinstance(value, Mapping):
            return {key: walk(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, where) for item in value]
        return value

    return dict(walk(raw, ""))
