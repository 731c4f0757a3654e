"""What a shard of one format holds, as data: tables, fields, attributes. One mechanics serves every
schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

EVENTS = "events"  # the table every shard has: one row per event, with the field `id`
ID = "id"
KINDS = ("str", "int", "float", "bool", "ints", "floats", "strs", "json")


class ShardError(RuntimeError):
    """A shard cannot be read or written as asked. The message names the file, the field and the remedy."""

    exit_code = 1


@dataclass(frozen=True)
class Field:
    """One column block of a table.

    `columns` None: one value per row, shape (n,). An empty tuple: any number of columns, shape (n, k), named
    by the writer. Otherwise: exactly these columns, shape (n, len(columns)).
    """

    name: str
    dtype: str
    columns: tuple[str, ...] | None = None
    unit: str = ""
    optional: bool = False
    finite: bool = True  # NaN and infinity are refused in floating-point fields


@dataclass(frozen=True)
class Table:
    """Fields with the same rows. Ragged: any number of rows per event, found by `offsets`; else one per
    event.
    """

    name: str
    fields: tuple[Field, ...]
    ragged: bool = True
    optional: bool = False

    def field(self, name: str) -> Field | None:
        return next((field for field in self.fields if field.name == name), None)


@dataclass(frozen=True)
class Attribute:
    """A named value of the whole file. Volatile ones (time, host, command) are not part of its content."""

    name: str
    kind: str
    required: bool = True
    volatile: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"attribute {self.name}: kind {self.kind!r} is none of {', '.join(KINDS)}")


@dataclass(frozen=True)
class Schema:
    """One format: `hpcreco/<experiment>/<product>` in one version."""

    format: str
    version: int
    tables: tuple[Table, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    def table(self, name: str) -> Table | None:
        return next((table for table in self.tables if table.name == name), None)

    def fields(self) -> Iterator[tuple[Table, Field]]:
        for table in self.tables:
            for field in table.fields:
                yield table, field
