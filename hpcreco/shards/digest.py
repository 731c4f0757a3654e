"""`content_digest`: what a shard says, apart from when, where and how compactly it was written.

It is the sha256 of a canonical JSON text that holds format, version, the meaning-bearing attributes, and for
every dataset its type, shape, column names and the sha256 of its bytes (rows in order, little-endian). Chunks
and filters do not enter, so a shard keeps its digest when it is repacked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpcreco.shards.attributes import STRUCTURAL


def little_endian(array: np.ndarray) -> np.ndarray:
    """The same numbers, contiguous and little-endian."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def dataset_entry(
    dtype: np.dtype, shape: tuple[int, ...], columns: tuple[str, ...], hashed: Any
) -> dict[str, Any]:
    """What one dataset contributes; `hashed` is the sha256 object fed with all its rows."""
    return {
        "dtype": np.dtype(dtype).newbyteorder("<").str,
        "shape": list(shape),
        "columns": list(columns),
        "sha256": hashed.hexdigest(),
    }


def content_digest(
    format_: str, version: int, attributes: Mapping[str, Any], datasets: Mapping[str, Mapping[str, Any]]
) -> str:
    """`attributes`: only those that bear meaning, see `meaningful`. `datasets`: path -> `dataset_entry`."""
    content = {"format": format_, "version": int(version), "attributes": attributes, "datasets": datasets}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def meaningful(attributes: Mapping[str, Any], volatile: list[str]) -> dict[str, Any]:
    """The attributes that decide equality: neither structural nor volatile."""
    return {
        name: value for name, value in attributes.items() if name not in STRUCTURAL and name not in volatile
    }
