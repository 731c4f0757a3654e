"""Which pulses shards a run reads: paths, folders and glob patterns, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcreco import shards
from hpcreco.config import ConfigError, Run
from hpcreco.experiments.icecube import arrays
from hpcreco.experiments.icecube import detector as _detector
from hpcreco.experiments.icecube.detector import Detector, DetectorError
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.settings import settings_of

KEYS = {
    "train": "data_iterator_settings.training.input_data",
    "validation": "data_iterator_settings.validation.input_data",
    "trafo": "data_iterator_settings.trafo.input_data",
    "test": "data_iterator_settings.test.input_data",
}
_FOREIGN = (".hdf5", ".hd5", ".db", ".sqlite", ".parquet", ".txt")


def find(run: Run, part: str) -> list[Path] | None:
    """The shards of `part` (a key of KEYS), sorted; None when the config names none.

    Raises ConfigError, naming the entry, when it leads to no shard.
    """
    patterns = getattr(settings_of(run).sources, part)
    if patterns is None:
        return None
    return sorted({path for pattern in patterns for path in matching(pattern, KEYS[part])}, key=str)


def matching(pattern: str, key: str = "input") -> list[Path]:
    """The shards that one path, folder or glob pattern leads to."""
    path = Path(pattern)
    if path.is_dir():
        found = sorted(p for p in path.glob("*.h5") if is_pulses(p))
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not found:
        raise ConfigError(
            f"{key}: nothing matches {pattern}; make shards with `hpcreco simulate icecube` or "
            "`hpcreco convert icecube`, and name their folder"
        )
    foreign = next((p for p in found if p.suffix in _FOREIGN and shards.identify(p) is None), None)
    if foreign is not None:
        raise ConfigError(
            f"{key}: {foreign} is no pulses shard; turn it into one with `hpcreco convert icecube {foreign} -o FOLDER`"
        )
    return found


def is_pulses(path: Path) -> bool:
    """Is this one of hpcreco's pulses shards?"""
    identity = shards.identify(path)
    return identity is not None and identity[0] == PULSES.format


def pulses(run: Run, index: shards.Index) -> np.ndarray:
    """(n_events,) float64: the detector's DOMs plus the event's pulses, which a likelihood's work grows with."""
    with shards.Shard(index.paths[0]) as shard:
        doms = float(np.prod(shard.attributes["detector_shape"]))
    return doms + np.asarray(index.rows["pulses"], np.float64)


def detector_of(run: Run) -> Detector:
    """The detector of the run's data, or the one that its config names. Raises ConfigError, DetectorError."""
    sources = settings_of(run).sources
    if sources.detector is not None:
        return arrays.named(sources.detector)
    for part in KEYS:
        paths = find(run, part) if getattr(sources, part) else None
        if paths:
            return of_shard(paths[0])
    raise ConfigError("detector: missing, and the config names no shards to take it from")


def of_shard(path: Path) -> Detector:
    """The detector of one shard."""
    with shards.Shard(path, PULSES) as shard:
        return _detector.beside(path, shard.attributes["detector_sha256"])


def check_one_detector(paths: list[Path], detector: Detector) -> None:
    """Raises DetectorError when a shard was made with another detector."""
    for path in paths:
        with shards.Shard(path, PULSES) as shard:
            found = shard.attributes["detector_sha256"]
        if found != detector.sha256:
            raise DetectorError(
                f"{path} was made with detector {found[:12]}, the run has {detector.sha256[:12]}; "
                "a run has one detector"
            )
