"""Which xy files a folder of parsed files asks for: groups of (event type, index, TPC), split into batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcreco.experiments.protodune import names
from hpcreco.experiments.protodune.names import FileName

LOG = logging.getLogger("hpcreco")


@dataclass(frozen=True)
class Source:
    """A parsed file as planning sees it: the events it holds and a digest of its content."""

    path: Path
    n_events: int
    digest: str


@dataclass(frozen=True)
class Group:
    """The channel file of one (event type, index, TPC), its truth if wanted, or what is wrong with them."""

    name: FileName
    x: Source | None
    y: Source | None
    y_type: str
    problem: str = ""

    @property
    def key(self) -> str:
        """The group in words, e.g. ``BeamCosmic 101 TPC1``."""
        return f"{self.name.event_type} {self.name.index} TPC{self.name.tpc}"


@dataclass(frozen=True)
class Batch:
    """Events [first, last) of a group, written to one xy file."""

    group: Group
    number: int
    n_batches: int
    first: int
    last: int
    output: Path

    @property
    def key(self) -> str:
        """The batch in words."""
        return f"{self.group.key} batch {self.number}"


def split(n_events: int, batch_size: int | None) -> list[tuple[int, int]]:
    """Ranges [first, last) of ceil(n / batch_size) batches, the last one may be short; one batch without a size."""
    size = batch_size or max(n_events, 1)
    return [(first, min(first + size, n_events)) for first in range(0, max(n_events, 1), size)]


def groups(
    folder: Path,
    tpc: int,
    x_type: str,
    y_types: Sequence[str],
    index_range: tuple[int, int] | None,
    inspect: Callable[[Path], Source],
) -> list[Group]:
    """Groups of a folder in sorted order; one that cannot be tiled carries its problem, the others go on.

    `y_types` are searched in order; empty for data without truth. `inspect` opens a parsed file's header.
    """
    known, unknown = names.scan([folder])
    if unknown:
        LOG.warning("%s: skipped %d files whose names do not follow the grammar", folder, len(unknown))
    wanted = [
        name
        for name in known
        if name.tpc == tpc
        and name.batch is None
        and name.product in (x_type, *y_types)
        and (index_range is None or index_range[0] <= name.index <= index_range[1])
    ]
    found = []
    for members in names.group(wanted, ("event_type", "index", "tpc")).values():
        if any(name.product == x_type for name in members):
            found.append(_group(members, x_type, y_types, inspect))
        else:
            LOG.warning("%s: no %s file beside it, skipped", members[0].path, x_type)
    return found


def _group(
    members: list[FileName], x_type: str, y_types: Sequence[str], inspect: Callable[[Path], Source]
) -> Group:
    x_name = _only(members, x_type)
    y_type = next((y for y in y_types if any(name.product == y for name in members)), "")
    try:
        x = inspect(x_name.path)
        if not y_types:
            return Group(x_name, x, None, "")
        if not y_type:
            problem = (
                f"{x_name.path}: no {' or '.join(y_types)} file beside it; --y-type none if there is no truth"
            )
            return Group(x_name, x, None, "", problem)
        y = inspect(_only(members, y_type).path)
    except (RuntimeError, ValueError, OSError) as error:
        if not hasattr(error, "exit_code"):
            raise
        return Group(x_name, None, None, "", str(error))
    problem = ""
    if x.n_events != y.n_events:
        problem = (
            f"{x.path} holds {x.n_events} events but {y.path} holds {y.n_events}: they must belong together"
        )
    return Group(x_name, x, y, y_type, problem)


def _only(members: list[FileName], product: str) -> FileName:
    """The file of a product; HDF5 is preferred to the legacy npz of the same events."""
    files = [name for name in members if name.product == product]
    return min(files, key=lambda name: (name.path.suffix != ".h5", str(name.path)))


def plan(group: Group, folder: Path, batch_size: int | None) -> list[Batch]:
    """The batches of a group and where they go; a group with a problem is one batch, which will say so."""
    ranges = split(group.x.n_events if group.x else 0, None if group.problem else batch_size)
    stem = Path(group.name.path.name).with_suffix(".h5")
    return [
        Batch(group, number, len(ranges), first, last, folder / names.derived(stem, "xy", batch=number))
        for number, (first, last) in enumerate(ranges)
    ]


def leftovers(batches: Sequence[Batch], folder: Path) -> list[Path]:
    """Files of the same groups from an earlier, finer split: with them the events would be counted twice."""
    if not folder.is_dir():
        return []
    expected = {batch.output.name for batch in batches}
    stems = {batch.output.name.split("-", 1)[1] for batch in batches}
    known, _ = names.scan([folder])
    return [
        name.path
        for name in known
        if name.batch is not None
        and name.path.name not in expected
        and name.path.name.startswith("batch")
        and name.path.name.split("-", 1)[1] in stems
    ]
