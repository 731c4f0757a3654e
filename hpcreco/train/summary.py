"""Summaries: one row of numbers per epoch, as tab-separated text that spreadsheets and pandas read alike."""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

#: columns that depend on the machine, not on the training; resumed and straight runs agree in all others
TIMING = (
    "train_time",
    "data_time",
    "compute_time",
    "save_time",
    "valid_time",
    "train_rate",
    "memory_mb",
)


class Rows(Protocol):
    """What takes the rows of a run, epoch by epoch."""

    def start(self) -> None:
        """Begin anew."""

    def resume(self, last_epoch: int) -> None:
        """Go on after `last_epoch`, forgetting what came later."""

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Take a row."""


class SummaryError(RuntimeError):
    """The summary file does not belong to this run."""

    exit_code = 1


def _format(value: float | int | str) -> str:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.6g}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"
    return str(value)


class Summary:
    """A summaries CSV with a header declared up front; every row is on disk when `append` returns."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)

    def start(self) -> None:
        """Begin a new file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\t".join(self.columns) + "\n")

    def resume(self, last_epoch: int) -> None:
        """Keep the rows up to `last_epoch`; when rows are cut, the old file stays as ``.bak``."""
        if not self.path.is_file():
            self.start()
            return
        lines = self.path.read_text().splitlines()
        if not lines or tuple(lines[0].split("\t")) != self.columns:
            raise SummaryError(
                f"{self.path} has other columns than this run writes; move it away, or resume with the config "
                "that made it"
            )
        kept = [
            line
            for line in lines[1:]
            if line.count("\t") == len(self.columns) - 1 and int(line.split("\t")[0]) <= last_epoch
        ]
        if len(kept) != len(lines) - 1:
            shutil.copyfile(self.path, self.path.with_suffix(".csv.bak"))
            temporary = self.path.with_name(f".{self.path.name}.part-{os.getpid()}")
            temporary.write_text("\n".join([lines[0], *kept]) + "\n")
            os.replace(temporary, self.path)

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Add a row; its keys must be the columns."""
        if set(row) != set(self.columns):
            wrong = sorted(set(row) ^ set(self.columns))
            raise SummaryError(f"{self.path}: row and header differ in {', '.join(wrong)}")
        with open(self.path, "a") as stream:
            stream.write("\t".join(_format(row[name]) for name in self.columns) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


class TensorBoard:
    """The same rows as TensorBoard scalars in ``output_dir/tensorboard``."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SummaryError(
                "tensorboard: true needs the package tensorboard (pip install 'hpcreco[tensorboard]')"
            ) from error
        self._folder, self._open = folder, SummaryWriter
        self._writer: Any = None

    def start(self) -> None:
        """Begin a new log."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = self._open(str(self._folder))

    def resume(self, last_epoch: int) -> None:
        """Continue; TensorBoard hides what was logged after `last_epoch`."""
        self._writer = self._open(str(self._folder), purge_step=last_epoch + 1)

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Log the numbers of a row."""
        for name, value in row.items():
            if name != "epoch" and not isinstance(value, str) and not math.isnan(value):
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a summaries file as numbers, without its columns of text (the stage)."""
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [{key: float(value) for key, value in row.items() if _is_number(value)} for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
