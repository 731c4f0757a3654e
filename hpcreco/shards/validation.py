"""One validator for every schema: reads the whole file and lists everything that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.shards import attributes as _attributes
from hpcreco.shards.access import open_hdf5, reading
from hpcreco.shards.digest import content_digest, dataset_entry, little_endian, meaningful
from hpcreco.shards.reader import Shard, check_identity
from hpcreco.shards.schema import EVENTS, ID, Schema, ShardError

_BLOCK_ROWS = 1 << 16


def validate(path: str | os.PathLike[str], schema: Schema | None = None) -> list[str]:
    """Problems of a shard or an artefact, each naming the file and the field; none means it is fine.

    Checked: it opens and is complete; format, version, attributes, types and shapes (against `schema` where
    given); offsets; NaN and infinity; and that the content still has the digest it was written with.
    """
    path = Path(path)
    try:
        with open_hdf5(path) as file, reading(path):
            attributes = _attributes.load(file)
            check_identity(path, attributes, schema)
            problems = []
            if EVENTS in file:
                problems = [
                    *_numbers(path, file),
                    *_table_problems(path, schema),
                    *_foreign(path, file, schema),
                ]
            if not problems and _recomputed(path, file, attributes) != attributes.get("content_digest"):
                problems.append(f"{path}: content differs from its content_digest; it was changed or damaged")
    except ShardError as error:
        return [str(error)]
    return problems


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    for table in file:
        for field in file[table]:
            yield f"{table}/{field}", file[table][field]


def _blocks(path: Path, name: str, dataset: Any) -> Iterator[np.ndarray]:
    with reading(path, name):
        if dataset.ndim == 0:
            yield np.asarray(dataset[()])
            return
        for first in range(0, dataset.shape[0], _BLOCK_ROWS):
            yield dataset[first : first + _BLOCK_ROWS]


def _numbers(path: Path, file: Any) -> Iterator[str]:
    """NaN and infinity in the fields of events, where they are not meant."""
    for name, dataset in _datasets(file):
        if dataset.dtype.kind == "f" and bool(dataset.attrs.get("finite", True)):
            count = sum(int((~np.isfinite(block)).sum()) for block in _blocks(path, name, dataset))
            if count:
                yield f"{path}: {name} has {count} NaN or infinite value(s); make it again from sound input"


def _table_problems(path: Path, schema: Schema | None) -> list[str]:
    problems = []
    with Shard(path, schema) as shard:
        for table in shard.tables:
            try:
                shard.offsets(table)
            except ShardError as error:
                problems.append(str(error))
    return problems


def _foreign(path: Path, file: Any, schema: Schema | None) -> Iterator[str]:
    """Tables and fields that the schema does not know."""
    if schema is None or not schema.tables:
        return
    for name, _ in _datasets(file):
        table_name, field = name.split("/")
        table = schema.table(table_name)
        known = name == f"{EVENTS}/{ID}" or (
            table is not None and (field == "offsets" or table.field(field) is not None)
        )
        if not known:
            yield f"{path}: {name} is not part of {schema.format}"


def _recomputed(path: Path, file: Any, attributes: dict[str, Any]) -> str:
    entries = {}
    for name, dataset in _datasets(file):
        hashed = hashlib.sha256()
        for block in _blocks(path, name, dataset):
            hashed.update(little_endian(block).tobytes())
        columns = tuple(_attributes.load(dataset).get("columns", ()))
        entries[name] = dataset_entry(dataset.dtype, dataset.shape, columns, hashed)
    content = meaningful(attributes, attributes.get("volatile_attributes", []))
    return content_digest(attributes["format"], attributes["version"], content, entries)
