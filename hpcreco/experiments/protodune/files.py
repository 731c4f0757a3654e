"""Which xy shards a run reads: folders, inclusive ranges of file indices, TPC filters, matched by
position.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from hpcreco.config import ConfigError, Run
from hpcreco.experiments.protodune import names
from hpcreco.experiments.protodune.settings import Range, Settings, Sources
from hpcreco.shards import Index

LOG = logging.getLogger("hpcreco")

_KEYS = {"train": "data.train_i", "validation": "data.inference_i"}


def find(run: Run, part: str) -> list[Path] | Index | None:
    """The xy files of `part` ("train" or "validation"), sorted by full path; None when the config does not
    name the part. An index of the events of a data set that makes them.

    Raises ConfigError, naming folder and range, when a folder is missing, holds no xy files, or none in the range.
    """
    settings = settings_of(run)
    if settings.made is not None:
        from hpcreco.experiments.protodune.plugins import data

        return data.index(settings.made, part, run.seed)
    sources = settings.sources
    ranges = sources.train if part == "train" else sources.validation
    if ranges is None:
        return None
    found: list[Path] = []
    for path, wanted, tpcs in zip(sources.paths, ranges, sources.tpcs, strict=True):
        if wanted is not None:
            found += _in_folder(path, wanted, tpcs, _KEYS[part])
    return sorted(set(found), key=str)


def voxels(run: Run, index: Index) -> np.ndarray:
    """(n_events,) float64: candidate voxels of each event, which is what the network's work grows with.

    Made events cost 1 each.
    """
    if not index.on_disk:
        return np.ones(index.n_events)
    return np.asarray(index.rows["voxels"], np.float64)


def settings_of(run: Run) -> Settings:
    """The ProtoDUNE part of a run."""
    assert isinstance(run.settings, Settings)
    return run.settings


def source_position(sources: Sources, file: Path) -> int | None:
    """Position in `sources.paths` of the folder that holds `file`; None when it comes from elsewhere."""
    folder = file.parent.absolute()
    for position, path in enumerate(sources.paths):
        if path.absolute() == folder:
            return position
    return None


def scale_of(settings: Settings, path: Path) -> float:
    """The factor on labels for a file: that of its folder, by the folder's real position in data_path."""
    scale = settings.reading.transforms.scale
    if not isinstance(scale, tuple):
        return scale
    position = source_position(settings.sources, path)
    if position is None:
        raise ConfigError(
            f"{path}: not in a folder of data.data_path, so none of the {len(scale)} numbers of transforms.scale "
            "is its own"
        )
    return scale[position]


def _in_folder(folder: Path, wanted: Range, tpcs: tuple[int, ...] | None, key: str) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(
            f"data.data_path: there is no folder {folder}; make it with `hpcreco tile -i PARSED -o {folder} -t TPC`"
        )
    known, unknown = names.scan([folder])
    shards = [name for name in known if name.product == "xy" and name.path.suffix == ".h5"]
    skipped = [path.name for path in unknown if path.suffix == ".h5"]
    if skipped:
        LOG.warning(
            "%s: skipped %d files whose names do not follow the grammar, e.g. %s",
            folder,
            len(skipped),
            skipped[0],
        )
    if not shards:
        legacy = any(name.product == "xy" and name.path.suffix == ".npz" for name in known)
        remedy = (
            f"turn its npz files into shards with `hpcreco convert {folder}`"
            if legacy
            else "run `hpcreco tile` first"
        )
        raise ConfigError(f"data.data_path: {folder} holds no xy shards (*_xy*.h5); {remedy}")
    low, high = wanted
    in_range = [name for name in shards if low <= name.index <= high]
    if not in_range:
        indices = sorted({name.index for name in shards})
        raise ConfigError(
            f"{key}: [{low}, {high}] takes no file of {folder}, whose {len(shards)} xy files have the indices "
            f"{_spans(indices)}"
        )
    chosen = [name for name in in_range if tpcs is None or _of_tpcs(name, tpcs)]
    if not chosen:
        there = ", ".join(sorted({_tpc_text(name) for name in in_range}))
        raise ConfigError(
            f"data.tpcs: {list(tpcs or ())} leaves no file of {folder} in {key} [{low}, {high}]; there is {there}"
        )
    return [name.path for name in chosen]


def _of_tpcs(name: names.FileName, tpcs: tuple[int, ...]) -> bool:
    """Is the file of one of `tpcs`? A joined file is when all TPCs in it are."""
    return name.tpc in tpcs or (bool(name.tpcs) and set(name.tpcs) <= set(tpcs))


def _tpc_text(name: names.FileName) -> str:
    joined = "-".join(map(str, name.tpcs))
    return f"TPC {joined or name.tpc}" if joined or name.tpc is not None else "no TPC in the name"


def _spans(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> "1-3, 7"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in spans)
