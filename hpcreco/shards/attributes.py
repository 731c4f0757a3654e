"""Attributes of a shard: checked against their kind, stored without variable-length types, read back as
Python.

Provenance that every file carries (`COMMON`) is filled in by the writer and is volatile: it says when, where
and by what a file was made, and never decides whether two files are equal or one is stale.
"""

from __future__ import annotations

import json
import shlex
import socket
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import numpy as np

from hpcreco.shards.schema import Attribute, Schema, ShardError

COMMON = (
    Attribute("created_utc", "str", volatile=True),
    Attribute("host", "str", volatile=True),
    Attribute("command_line", "str", volatile=True),
    Attribute("code_version", "str", volatile=True),
)
# Written by the mechanics itself. The last two let a file be read and checked by who does not know its schema.
STRUCTURAL = ("format", "version", "complete", "content_digest", "json_attributes", "volatile_attributes")
# What says whether a file can be used, and which it is.
IDENTITY = ("format", "version", "complete", "content_digest")

_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int, np.integer),
    "float": (float, int, np.floating, np.integer),
    "bool": (bool, np.bool_),
}
_LISTS = {"ints": "int", "floats": "float", "strs": "str"}
_PYTHON: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


def provenance() -> dict[str, str]:
    """When, where and by which command and version this file is being made."""
    import hpcreco

    return {
        "created_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command_line": shlex.join(sys.argv),
        "code_version": hpcreco.__version__,
    }


def check(schema: Schema, values: Mapping[str, Any], path: object) -> dict[str, Any]:
    """`values` completed by the common provenance, as plain Python, each of its attribute's kind.

    Raises ShardError for an attribute that is missing, unknown to the schema, or of another kind.
    """
    known = {attribute.name: attribute for attribute in (*COMMON, *schema.attributes)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ShardError(
            f"{path}: attribute {unknown[0]!r} is not part of {schema.format}; known: {', '.join(known)}"
        )
    complete = {**provenance(), **{name: value for name, value in values.items() if value is not None}}
    missing = [name for name, attribute in known.items() if attribute.required and name not in complete]
    if missing:
        raise ShardError(
            f"{path}: attribute {missing[0]!r} of {schema.format} is missing; give it to the writer"
        )
    return {name: _plain(known[name], value, path) for name, value in sorted(complete.items())}


def _plain(attribute: Attribute, value: Any, path: object) -> Any:
    kind = attribute.kind
    if kind == "json":
        try:
            return json.loads(json.dumps(value, sort_keys=True))
        except (TypeError, ValueError) as error:
            raise ShardError(f"{path}: attribute {attribute.name!r} is not JSON: {error}") from error
    if kind in _LISTS:
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if isinstance(items, str) or not hasattr(items, "__iter__"):
            raise ShardError(
                f"{path}: attribute {attribute.name!r} should be a list of {kind}, it is {value!r}"
            )
        return [_scalar(attribute, _LISTS[kind], item, path) for item in items]
    return _scalar(attribute, kind, value, path)


def _scalar(attribute: Attribute, kind: str, value: Any, path: object) -> Any:
    wrong_bool = (
        isinstance(value, bool | np.bool_) and kind != "bool"
    )  # True is an int to Python, not to a reader
    if wrong_bool or not isinstance(value, _SCALARS[kind]):
        raise ShardError(f"{path}: attribute {attribute.name!r} should be {kind}, it is {value!r}")
    return _PYTHON[kind](value)


def store(target: Any, schema: Schema, values: Mapping[str, Any]) -> None:
    """Write checked attributes onto an HDF5 object, with what is needed to read them without the schema."""
    kinds = {attribute.name: attribute for attribute in (*COMMON, *schema.attributes)}
    target.attrs["format"] = _text(schema.format)
    target.attrs["version"] = np.int64(schema.version)
    write_strings(target, "json_attributes", [name for name in values if kinds[name].kind == "json"])
    write_strings(target, "volatile_attributes", [name for name in values if kinds[name].volatile])
    for name, value in values.items():
        kind = kinds[name].kind
        if kind == "json":
            target.attrs[name] = _text(json.dumps(value, sort_keys=True))
        elif kind == "strs":
            write_strings(target, name, value)
        elif kind in ("ints", "floats"):
            target.attrs[name] = np.array(value, "i8" if kind == "ints" else "f8")
        elif kind == "str":
            target.attrs[name] = _text(value)
        else:
            target.attrs[name] = {"int": np.int64, "float": np.float64, "bool": np.bool_}[kind](value)


def write_strings(target: Any, name: str, values: list[str] | tuple[str, ...]) -> None:
    """Fixed-length UTF-8 strings: no variable-length heap, and `h5dump` shows them."""
    import h5py

    encoded = [value.encode() for value in values]
    width = max([1, *map(len, encoded)])
    array = np.array(encoded, f"S{width}")
    target.attrs.create(name, array, shape=array.shape, dtype=h5py.string_dtype("utf-8", width))


def store_text(target: Any, name: str, value: str) -> None:
    """One fixed-length UTF-8 string."""
    target.attrs[name] = _text(value)


def _text(value: str) -> np.ndarray:
    import h5py

    encoded = value.encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))


def load(target: Any) -> dict[str, Any]:
    """All attributes of an HDF5 object as Python values (structural ones included)."""
    stored = target.attrs  # made anew, at the cost of an attribute, each time it is asked for
    values = {name: _python(stored[name]) for name in stored}
    for name in values.get("json_attributes", []):
        values[name] = json.loads(values[name])
    return values


def header(target: Any) -> dict[str, Any]:
    """As `load`, but with values of `IDENTITY` only, None for the others: a tenth of the time.

    HDF5 reads all of them to list their names, and finds by its checksums what is damaged in any.
    """
    stored = target.attrs
    return {name: _python(stored[name]) if name in IDENTITY else None for name in stored}


def _python(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, list):
            return [item.decode() if isinstance(item, bytes) else item for item in value]
    return value


def store_field(dataset: Any, columns: tuple[str, ...], unit: str, finite: bool) -> None:
    """What a reader of the bare file has to know of a field: column names, unit, and whether NaN is meant."""
    if columns:
        write_strings(dataset, "columns", columns)
    if unit:
        dataset.attrs["unit"] = _text(unit)
    if not finite:
        dataset.attrs["finite"] = np.bool_(False)
