"""What a file-wise run says: its plan, its progress, its end on the screen, and the JSON run report."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hpcreco import shards
from hpcreco.collective import Collective
from hpcreco.filewise.jobs import Job

FORMAT = "hpcreco/run-report/1"


def print_plan(
    title: str,
    jobs: Sequence[Job],
    mine: Sequence[int],
    reasons: dict[int, str],
    by_rank: Sequence[Sequence[int]],
    first_worker: int,
    schedule: str,
) -> None:
    """Who would do what and why."""
    print(f"{title}: {len(mine)} files, {len(mine) - len(reasons)} finished, {len(reasons)} to do")
    print(f"{'worker':>8} {'files':>7} {'size':>10}")
    for rank, share in enumerate(by_rank):
        size = sum(jobs[number].size for number in share)
        print(f"{first_worker + rank:>8} {len(share):>7} {_bytes(size):>10}")
    if schedule == "dynamic":
        print("(an estimate: files are handed out on demand)")
    owner = {number: first_worker + rank for rank, share in enumerate(by_rank) for number in share}
    for number in sorted(reasons):
        print(f"  {jobs[number].key}  worker {owner[number]}  {reasons[number]}")


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Progress:
    """A bar for rank 0's share on a terminal; in a log, one line per file from every rank."""

    def __init__(self, title: str, expected: int | None, worker: int, collective: Collective) -> None:
        self._title = title
        self._expected = expected
        self._name = f"{title} [worker {worker}]" if collective.size > 1 or worker else title
        self._count = 0
        self._bar: Any = None
        self._show_bar = collective.rank == 0 and sys.stdout.isatty()

    def __enter__(self) -> Progress:
        if self._show_bar and self._expected != 0:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._expected)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, record: dict[str, Any]) -> None:
        """Show one file; a failure is one line on stderr, its traceback is in the run report."""
        self._count += 1
        of = "" if self._expected is None else f"/{self._expected}"
        if record["status"] == "failed":
            message = record["error"].splitlines()[0]
            print(f"hpcreco: error: {self._title}: {record['key']}: {message}", file=sys.stderr, flush=True)
        elif self._bar is None:
            text = f"{self._name}: {self._count}{of} {record['key']} {record['status']}, {record['seconds']:.2f} s"
            print(text, flush=True)
        if self._bar is not None:
            self._bar.advance(self._task)


def print_summary(content: dict[str, Any], written: Path | None) -> None:
    """The end of a run in one line, or two when something is left to do."""
    counts = Counter(content["counts"])
    told = ", ".join(
        f"{counts[status]} {word}"
        for status, word in (
            ("done", "done"),
            ("skipped", "already finished"),
            ("failed", "failed"),
            ("stopped", "abandoned"),
            ("left", "left"),
        )
        if counts[status]
    )
    print(f"{content['title']}: {told or 'no files'}, {content['seconds']:.1f} s", flush=True)
    if content["stopped_by"]:
        print(
            f"{content['title']}: stopped by {', '.join(content['stopped_by'])}; start again to go on",
            flush=True,
        )
    if counts["failed"]:
        where = f"tracebacks in {written}" if written else "--run-report FILE keeps the tracebacks"
        print(f"{content['title']}: {counts['failed']} failed, {where}", file=sys.stderr, flush=True)


def write_report(path: Path | None, content: dict[str, Any]) -> Path | None:
    """Write the run report; array tasks each write their own. None when there is none, or no room for it."""
    if path is None:
        return None
    if content["array_tasks"] > 1:
        path = path.with_name(f"{path.stem}.task{content['array_task']}{path.suffix}")
    try:
        with shards.atomic(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, default=_plain) + os.linesep)
    except OSError as error:
        print(f"hpcreco: error: {path}: the run report cannot be written: {error}", file=sys.stderr)
        return None
    return path


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as JSON; anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
