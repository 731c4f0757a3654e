"""`data.data_path` and what goes with it, entry by entry: which files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcreco.config import ConfigError
from hpcreco.experiments.protodune import settings
from hpcreco.experiments.protodune.dialect.keys import Data


def sources(data: Data) -> settings.Sources:
    """Folders, file indices of both parts and TPCs. Raises ConfigError where the lists do not fit each other."""
    n = len(data.data_path)
    if n == 0:
        raise ConfigError("data.data_path: expected a folder of xy files, or a list of them")
    scale = data.transforms.scale
    if isinstance(scale, tuple) and len(scale) != n:
        raise ConfigError(
            f"data.transforms.scale: {len(scale)} numbers for {n} data_path entries; give one each, or one "
            "for all"
        )
    return settings.Sources(
        paths=tuple(Path(path) for path in data.data_path),
        train=_ranges(data.train_i, n, "data.train_i"),
        validation=_ranges(data.inference_i, n, "data.inference_i"),
        tpcs=_tpcs(data.tpcs, n),
    )


def _ranges(value: Any, n: int, where: str) -> tuple[settings.Range | None, ...] | None:
    if value is None:
        return None
    ranges: list[settings.Range | None] = []
    for entry in _per_path(value, n, where, "[first, last] or null"):
        if entry is None:
            ranges.append(None)
        elif not _is_integers(entry) or len(entry) != 2 or entry[0] > entry[1]:
            raise ConfigError(
                f"{where}: expected [first, last] file index, both included, or null, found {entry!r}"
            )
        else:
            ranges.append((entry[0], entry[1]))
    return tuple(ranges) if any(r is not None for r in ranges) else None


def _tpcs(value: Any, n: int) -> tuple[tuple[int, ...] | None, ...]:
    if value is None:
        return (None,) * n
    out: list[tuple[int, ...] | None] = []
    for entry in _per_path(value, n, "data.tpcs", "a list of TPC numbers or null"):
        if entry is not None and not _is_integers(entry):
            raise ConfigError(f"data.tpcs: expected a list of TPC numbers or null, found {entry!r}")
        out.append(None if entry is None else tuple(entry))
    return tuple(out)


def _per_path(value: Any, n: int, where: str, what: str) -> list[Any]:
    """`value`, written once for one path or as a list for several, as a list of `n`."""
    if n == 1 and _is_integers(value):
        return [value]
    if not isinstance(value, list) or _is_integers(value):
        raise ConfigError(
            f"{where}: with {n} data_path entries expected a list of {n}, each {what}, found {value!r}"
        )
    if len(value) != n:
        raise ConfigError(
            f"{where}: {len(value)} entries for {n} data_path entries; they are matched by position, null "
            "skips one"
        )
    return value


def _is_integers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    )
