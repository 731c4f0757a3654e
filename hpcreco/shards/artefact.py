"""Artefacts: small named arrays with provenance that are no events (statistics, partitions, exported
models).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.shards import attributes as _attributes
from hpcreco.shards.access import open_hdf5, reading
from hpcreco.shards.digest import content_digest, dataset_entry, little_endian, meaningful
from hpcreco.shards.reader import check_identity
from hpcreco.shards.schema import Schema, ShardError
from hpcreco.shards.space import abandon, close_trimmed, reserve
from hpcreco.shards.temporary import atomic
from hpcreco.shards.writer import LIBVER, seal, writing

_GROUP = "arrays"


@dataclass(frozen=True)
class Artefact:
    """Arrays by name, the attributes they were written with, and the digest of both."""

    path: Path
    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]
    digest: str


def write_artefact(
    path: str | os.PathLike[str],
    schema: Schema,
    attributes: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> str:
    """Write `arrays` atomically; return the content digest. The schema's tables are not used, its attributes
    are.
    """
    import h5py

    path = Path(path)
    checked = _attributes.check(schema, attributes, path)
    plain = {name: little_endian(np.asarray(array)) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.kind not in "iufb":
            raise ShardError(f"{path}: array {name!r} has type {array.dtype}; only numbers can be stored")
    entries = {
        f"{_GROUP}/{name}": dataset_entry(array.dtype, array.shape, (), hashlib.sha256(array.tobytes()))
        for name, array in plain.items()
    }
    volatile = [a.name for a in (*_attributes.COMMON, *schema.attributes) if a.volatile]
    digest = content_digest(schema.format, schema.version, meaningful(checked, volatile), entries)
    with writing(path), atomic(path) as temporary:
        file = h5py.File(temporary, "w", libver=LIBVER, locking=False)
        try:
            reserve(file, sum(array.nbytes for array in plain.values()))
            _attributes.store(file, schema, checked)
            group = file.create_group(_GROUP)
            for name, array in plain.items():
                group.create_dataset(name, data=array)
            seal(file, digest)
            close_trimmed(file)
        except BaseException:
            abandon(file)
            raise
    return digest


def read_artefact(path: str | os.PathLike[str], schema: Schema | None = None) -> Artefact:
    """Raises ShardError for a file that is damaged, incomplete or of another format or version."""
    path = Path(path)
    with open_hdf5(path) as file, reading(path):
        attributes = _attributes.load(file)
        check_identity(path, attributes, schema)
        arrays = {name: np.asarray(dataset[()]) for name, dataset in file[_GROUP].items()}
    return Artefact(path, arrays, attributes, attributes["content_digest"])
