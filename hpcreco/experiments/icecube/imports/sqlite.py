"""Read-only access to the sqlite files of other programs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from hpcreco.experiments.icecube.imports.events import ImportFileError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing, also where the folder is read-only."""
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise ImportFileError(f"{path}: not a readable sqlite file ({error})") from error
    finally:
        connection.close()


def tables(path: Path) -> dict[str, list[str]]:
    """Names of the tables, each with its columns."""
    with opened(path) as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {n: [row[1] for row in connection.execute(f'pragma table_info("{n}")')] for n in names}


def columns(path: Path, table: str, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns of a table as float64 arrays; raises ImportFileError for one that it lacks."""
    found = tables(path).get(table, [])
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ImportFileError(
            f"{path}: table {table} has no column {missing[0]!r}; it has {', '.join(found)}"
        )
    listed = ", ".join(f'"{name}"' for name in wanted)
    with opened(path) as connection:
        rows = connection.execute(f'select {listed} from "{table}"').fetchall()  # noqa: S608  (names checked above)
    array = np.array(rows, np.float64).reshape(-1, len(wanted))
    return {name: array[:, i] for i, name in enumerate(wanted)}
