"""From YAML files to one plain mapping: the file, what it extends and includes, and ``--set`` over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpcreco.config.errors import ConfigError, nearest
from hpcreco.config.variables import expand


def load(name: str, assignments: Sequence[str] = ()) -> dict[str, Any]:
    """The raw config `name` (path or shipped) with overrides applied and variables expanded."""
    return expand(override(read(find(name)), assignments))


def find(name: str) -> Path:
    """A config file: a path, or the name of a shipped one such as ``protodune/ghost3d_tiny`` or ``ghost3d_tiny``."""
    path = Path(name)
    if path.is_file():
        return path
    folder = shipped_configs()
    stem = name.removesuffix(".yaml")
    known = {str(p.relative_to(folder).with_suffix("")): p for p in sorted(folder.rglob("*.yaml"))}
    matches = [p for key, p in known.items() if key == stem or key.rpartition("/")[2] == stem]
    if len(matches) == 1:
        return matches[0]
    close = nearest(stem.rpartition("/")[2], [key.rpartition("/")[2] for key in known])
    hint = f"; did you mean {close!r}?" if close else ""
    raise ConfigError(
        f"there is no config {name!r}, neither as a file nor among the shipped ones (`hpcreco config list`){hint}"
    )


def shipped_configs() -> Path:
    """The folder of configs that come with hpcreco: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def read(path: Path) -> dict[str, Any]:
    """The mapping in `path`, merged over the files its ``extends:`` names (relative to it, or shipped).

    The files that ``include:`` names are joined to it, each key in one of them only.
    """
    return _read(path, ())


def _read(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in chain:
        raise ConfigError(f"{path} extends itself through " + " -> ".join(str(p.name) for p in chain))
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    raw = parse(text, str(path))
    merged: dict[str, Any] = {}
    for base in _listed(raw.pop("extends", [])):
        merged = merge(merged, _read(_beside(path, base), (*chain, path)))
    for part in _listed(raw.pop("include", [])):
        raw = _joined(raw, _read(_beside(path, part), (*chain, path)), f"{path.name} and {part}")
    return merge(merged, raw)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _beside(path: Path, name: str) -> Path:
    """The file `name` in the folder of `path`, or the shipped config of that name."""
    beside = path.parent / name
    return beside if beside.is_file() else find(name)


def _joined(one: Mapping[str, Any], other: Mapping[str, Any], files: str, where: str = "") -> dict[str, Any]:
    """The keys of both; one that both define is an error, a mapping in both is joined."""
    out = dict(one)
    for key, value in other.items():
        if key not in out:
            out[key] = value
        elif isinstance(value, Mapping) and isinstance(out[key], Mapping):
            out[key] = _joined(out[key], value, files, f"{where}{key}.")
        else:
            raise ConfigError(
                f"{files} both define {where}{key}; leave it in one, or use `extends:` to override"
            )
    return out


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: mappings merge key by key, everything else replaces."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out


def override(raw: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` assignments (values in YAML) to a raw config; missing mappings on the way are made."""
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {text!r}: write it as key.subkey=value")
        try:
            parsed = yaml.load(value, Loader=_Loader)  # noqa: S506  (_Loader is a SafeLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text!r}: the value is not valid YAML: {error}") from error
        change: Any = parsed
        for part in reversed(name.split(".")):
            change = {part: change}
        raw = merge(raw, change)
    return raw


def parse(text: str, source: str) -> dict[str, Any]:
    """Parse YAML `text`; `source` is named in errors."""
    loader = _Loader(text)
    loader.name = source
    try:
        raw = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(raw, dict):
        raise ConfigError(f"{source} should hold keys and values, found {type(raw).__name__}")
    return raw


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key defined twice and reads 1e-4 as the number it is."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(
                f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: key {key!r} is defined twice"
            )
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
