"""Configuration: YAML files -> the typed `Run` that the core works with.

`load` reads a file and whatever it extends, applies ``--set`` overrides and expands variables; the result is still in
the experiment's own dialect. Each experiment's `normalise` turns it into a `Run`.
"""

from hpcreco.config.checking import Strict, build
from hpcreco.config.errors import ConfigError, nearest
from hpcreco.config.reading import find, load, override, parse, read, shipped_configs
from hpcreco.config.run import (
    Cadence,
    EarlyStop,
    Loading,
    Parallel,
    Run,
    Steps,
    Store,
    differences,
    within_budget,
)
from hpcreco.config.variables import expand

__all__ = [
    "Cadence",
    "ConfigError",
    "EarlyStop",
    "Loading",
    "Parallel",
    "Run",
    "Steps",
    "Store",
    "Strict",
    "build",
    "differences",
    "expand",
    "find",
    "load",
    "nearest",
    "override",
    "parse",
    "read",
    "shipped_configs",
    "within_budget",
]
