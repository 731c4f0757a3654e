"""Shards: HDF5 files of events, one mechanics for every schema.

A schema (`Schema`, `Table`, `Field`, `Attribute`) says what a format holds. `ShardWriter` writes a file
atomically with a content digest; `Shard` reads single events; `index` (or `entry` by several
processes, then `join`) and `Pool` make many files one, `made` stands for files where events are made and not read;
`validate` lists what is wrong.
"""

from hpcreco.shards.artefact import Artefact, read_artefact, write_artefact
from hpcreco.shards.indexes import Entry, Index, Pool, entry, index, join
from hpcreco.shards.made import Made, made
from hpcreco.shards.reader import Shard, identify
from hpcreco.shards.schema import Attribute, Field, Schema, ShardError, Table
from hpcreco.shards.temporary import atomic, remove_dead
from hpcreco.shards.validation import validate
from hpcreco.shards.writer import ShardWriter

__all__ = [
    "Artefact",
    "Attribute",
    "Entry",
    "Field",
    "Index",
    "Made",
    "Pool",
    "Schema",
    "Shard",
    "ShardError",
    "ShardWriter",
    "Table",
    "atomic",
    "entry",
    "identify",
    "index",
    "join",
    "made",
    "read_artefact",
    "remove_dead",
    "validate",
    "write_artefact",
]
