"""The grammar of ProtoDUNE file names, and tables of files grouped by what their names say.

A name is a free prefix, then ``<EventType><sep><index><sep><product>`` (each separator is any one
character), then a character that is not part of a word, or the end: ``reco_BeamCosmic_001_wire-TPC1.h5``.
Anywhere in the name there may be a TPC (``TPC<digits>``), a batch (``batch<digits>``), and in front an epoch
(``epoch<digits>-``). Several TPCs joined are ``TPC159``, their digits in a row, since a single TPC is 0 to 11;
where that would be ambiguous they are ``TPCJ1-5-10``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EVENT_TYPES = ("Mu", "Electron", "Pion", "BeamCosmic", "protoDUNE")
PRODUCTS = (
    *("root", "energy", "depo", "depoElectron", "wire", "hit", "xy", "pixel", "yinf", "solved", "merged"),
    *("mcbeamcosmic", "mcparticle", "spacepoint", "wirecell", "calo", "calonosce"),
)
TRUTH_PRODUCTS = ("energy", "depo", "depoElectron")
KEYS = ("event_type", "index", "product", "tpc", "tpcs", "batch", "epoch")
MAX_TPC = 11  # a larger number is the digits of several

_CORE = re.compile(
    rf"(?P<event_type>{'|'.join(EVENT_TYPES)}).(?P<index>\d+).(?P<product>{'|'.join(PRODUCTS)})(?=\W|$)",
    re.DOTALL,
)
# "TPC1*" means coordinates relative to TPC 1 with a wider coverage: not a TPC number.
_TPC = re.compile(r"TPC(?:(?P<digits>\d+)(?![\d*])|J(?P<joined>\d+(?:-\d+)*))")
_BATCH = re.compile(r"batch(\d+)")
_EPOCH = re.compile(r"^epoch(\d+)-")


class FileNameError(ValueError):
    """A file name that does not follow the grammar."""

    exit_code = 2


@dataclass(frozen=True)
class FileName:
    """What one file name says. ``tpc`` is None when the name holds no TPC or several; these are in ``tpcs``."""

    path: Path
    event_type: str
    index: int
    product: str
    tpc: int | None = None
    batch: int | None = None
    epoch: int | None = None
    tpcs: tuple[int, ...] = ()

    def key(self, *by: str) -> tuple:
        """Return the named fields, e.g. ``name.key("index", "tpc")``."""
        return tuple(getattr(self, field) for field in by)


def parse(path: str | Path) -> FileName | None:
    """Read the last component of `path`; None when it does not follow the grammar."""
    path = Path(path)
    core = _CORE.search(path.name)
    if core is None:
        return None
    tpcs = _tpcs(path.name)
    batch, epoch = _BATCH.search(path.name), _EPOCH.search(path.name)
    return FileName(
        path=path,
        event_type=core["event_type"],
        index=int(core["index"]),
        product=core["product"],
        tpc=tpcs[0] if len(tpcs) == 1 else None,
        batch=int(batch[1]) if batch else None,
        epoch=int(epoch[1]) if epoch else None,
        tpcs=tpcs if len(tpcs) > 1 else (),
    )


def _tpcs(text: str) -> tuple[int, ...]:
    """The TPCs that a name speaks of, none or one or several."""
    token = _TPC.search(text)
    if token is None:
        return ()
    if token["joined"]:
        return tuple(int(tpc) for tpc in token["joined"].split("-"))
    digits = tuple(map(int, token["digits"]))
    several = int(token["digits"]) > MAX_TPC and len(set(digits)) == len(digits)
    return digits if several else (int(token["digits"]),)


def tpc_token(tpcs: Sequence[int]) -> str:
    """``TPC5``, ``TPC159``, or ``TPCJ1-5-10`` where digits in a row would be read as something else."""
    token = "TPC" + "".join(map(str, tpcs))
    return token if _tpcs(token) == tuple(tpcs) else "TPCJ" + "-".join(map(str, tpcs))


def require(path: str | Path) -> FileName:
    """Like `parse`, but raise an error that explains the grammar."""
    name = parse(path)
    if name is None:
        raise FileNameError(
            f"{path}: the file name must contain <EventType>_<index>_<product>, "
            "e.g. reco_BeamCosmic_001_wire-TPC1.h5 "
            f"(event types: {', '.join(EVENT_TYPES)}; products: {', '.join(PRODUCTS)})"
        )
    return name


def compose(event_type: str, index: int, product: str, tpc: int | None = None, suffix: str = ".h5") -> str:
    """Build a parsed file's name, ``reco_BeamCosmic_001_wire-TPC1.h5``; one particle: ``reco_single...``."""
    prefix = "reco_" if event_type in ("BeamCosmic", "protoDUNE") else "reco_single"
    tail = "" if tpc is None else f"-TPC{tpc}"
    return f"{prefix}{event_type}_{index:03d}_{product}{tail}{suffix}"


def replace_product(path: str | Path, product: str) -> str:
    """Return the file name with its product token, and nothing else, replaced."""
    name = require(path).path.name
    start, end = _CORE.search(name).span("product")  # type: ignore[union-attr]  # `require` found it
    return name[:start] + product + name[end:]


def replace_tpc(path: str | Path, tpcs: Sequence[int]) -> str:
    """Return the file name with its TPC token replaced by that of `tpcs`."""
    name = Path(path).name
    token = _TPC.search(name)
    if token is None:
        raise FileNameError(f"{path}: the file name must say which TPC it is of, e.g. -TPC1")
    return name[: token.start()] + tpc_token(tpcs) + name[token.end() :]


def derived(path: str | Path, product: str, *, batch: int | None = None, epoch: int | None = None) -> str:
    """Name of a file made from `path`: product replaced, ``batch<b>-`` and then ``epoch<e>-`` put in front."""
    name = replace_product(path, product)
    if batch is not None:
        name = f"batch{batch}-{name}"
    return name if epoch is None else f"epoch{epoch}-{name}"


Table = dict[tuple, list[FileName]]


def scan(paths: Iterable[str | Path]) -> tuple[list[FileName], list[Path]]:
    """Split paths (folders are listed, not descended into) into those that follow the grammar and others."""
    known: list[FileName] = []
    unknown: list[Path] = []
    for path in map(Path, paths):
        for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else (path,):
            if file.name.startswith(".") or file.suffix == ".json":  # temporaries and run reports
                continue
            name = parse(file)
            if name is None:
                unknown.append(file)
            else:
                known.append(name)
    return known, unknown


def group(names: Iterable[FileName], by: Sequence[str] = ("event_type", "index", "tpc")) -> Table:
    """Collect names that share the fields `by`, in sorted key order (None sorts first)."""
    unknown = [field for field in by if field not in KEYS]
    if unknown:
        raise ValueError(f"cannot group files by {unknown}; choose from {KEYS}")
    table: Table = {}
    for name in names:
        table.setdefault(name.key(*by), []).append(name)
    ordered = sorted(table, key=_sort_key)
    return {key: sorted(table[key], key=lambda name: str(name.path)) for key in ordered}


def select(table: Mapping[tuple, list[FileName]], keep: Callable[[FileName], bool]) -> Table:
    """Keep the files for which `keep` is true; groups left empty disappear."""
    chosen = {key: [name for name in names if keep(name)] for key, names in table.items()}
    return {key: names for key, names in chosen.items() if names}


def difference(todo: Mapping[tuple, list[FileName]], done: Iterable[tuple]) -> Table:
    """Return the groups of `todo` whose key is not in `done` (both grouped by the same fields)."""
    finished = set(done)
    return {key: names for key, names in todo.items() if key not in finished}


def flatten(table: Mapping[tuple, list[FileName]]) -> list[FileName]:
    """List all files of a table in sorted key order."""
    return [name for key in sorted(table, key=_sort_key) for name in table[key]]


def _sort_key(key: tuple) -> tuple:
    return tuple((value is not None, value if value is not None else 0) for value in key)
