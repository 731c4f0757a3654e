"""A report's folder, which appears complete or not at all, and its CSV files."""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpcreco.shards import atomic


class ReportError(RuntimeError):
    """A report cannot be written where it was asked for."""

    exit_code = 1


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A comma-separated table; numbers with six significant digits, unknown ones empty."""
    with atomic(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """The same from rows by name, with a header of all their names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, names, ([row.get(name) for name in names] for row in rows))


def write_text(path: Path, text: str) -> None:
    """A file that appears complete."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` at the end, or vanishes on an exception."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, which is kept if that fails; only a former report is replaced."""
    if not folder.exists():
        new.rename(folder)
        return
    if any(folder.iterdir()) and not (folder / "report.txt").is_file():
        raise ReportError(f"{folder} exists and is no report; choose another folder with --out")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
