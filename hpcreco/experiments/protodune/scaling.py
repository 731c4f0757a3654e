"""Charges in the size that networks learn from, and back; scales that are measured on the training data.

A measured scale belongs to the weights trained with it. It is kept beside them, in output_dir/normalisation.h5, and
read from there by everything that resumes or infers.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from hpcreco import shards
from hpcreco.config import ConfigError, Run
from hpcreco.experiments.protodune.files import scale_of, settings_of
from hpcreco.experiments.protodune.settings import Normalise
from hpcreco.shards import Attribute, Index, Schema

SCHEMA = Schema(
    format="hpcreco/protodune/normalisation",
    version=1,
    tables=(),
    attributes=(Attribute("index_digest", "str"), Attribute("events", "int")),
)

#: events a scale is measured on, spread evenly over the training data
EVENTS = 200

Values = TypeVar("Values", np.ndarray, Tensor)


def squeeze(values: Values, how: Normalise | None) -> Values:
    """q / scale, asinh(q / scale), or sign(q) log(1 + |q| / scale); as they are when `how` is None."""
    if how is None:
        return values
    scaled = values / _number(how)
    if how.kind == "linear":
        return scaled
    if isinstance(scaled, Tensor):
        return scaled.asinh() if how.kind == "asinh" else scaled.sign() * scaled.abs().log1p()
    return np.arcsinh(scaled) if how.kind == "asinh" else np.sign(scaled) * np.log1p(np.abs(scaled))


def unsqueeze(values: Tensor, how: Normalise | None) -> Tensor:
    """The inverse of `squeeze`."""
    if how is None:
        return values
    if how.kind == "asinh":
        values = values.sinh()
    elif how.kind == "log":
        values = values.sign() * values.abs().expm1()
    return values * _number(how)


def _number(how: Normalise) -> float:
    assert how.scale != "auto"  # `of_features` and `of_labels` see to that
    return how.scale


# ---------------------------------------------------------------------------------------------- measured scales


def of_features(run: Run) -> Normalise | None:
    """How charges on the wires are squeezed, its scale a number."""
    return _resolved(run, settings_of(run).reading.normalise, "features")


def of_labels(run: Run) -> Normalise | None:
    """How labels are squeezed, its scale a number."""
    return _resolved(run, settings_of(run).reading.normalise_labels, "labels")


def file_of(run: Run) -> Path:
    """Where a run keeps what it measured."""
    return run.output_dir / "normalisation.h5"


def wanted(run: Run) -> bool:
    """Does the config leave a scale to be measured?"""
    reading = settings_of(run).reading
    return any(
        how is not None and how.scale == "auto" for how in (reading.normalise, reading.normalise_labels)
    )


def measure(run: Run, index: Index) -> dict[str, float]:
    """Medians of the positive charges and of the positive labels, scaled as the config says, in some training events.

    Written to `file_of(run)`. Raises ConfigError when there is nothing positive.
    """
    settings = settings_of(run)
    chosen = np.unique(np.linspace(0, index.n_events - 1, min(EVENTS, index.n_events)).astype(int))
    first = np.asarray(index.first, np.int64)
    found: dict[str, list[np.ndarray]] = {"features": [], "labels": []}
    for number, path in enumerate(index.paths):
        events = chosen[(chosen >= first[number]) & (chosen < first[number + 1])] - first[number]
        with shards.Shard(path) as shard:
            for event in events:
                columns = shard.read(int(event), "voxels", ["features", "labels"])
                found["features"].append(columns["features"][columns["features"] > 0])
                labels = columns["labels"][:, 0] * scale_of(settings, Path(path))
                found["labels"].append(labels[labels > 0])
    scales = {}
    for name, parts in found.items():
        values = np.concatenate(parts) if parts else np.zeros(0)
        if not len(values):
            raise ConfigError(
                f"data.normalise: scale: auto: the training data hold no positive {name}; give a number"
            )
        scales[name] = float(np.median(values))
    arrays = {name: np.array([scale]) for name, scale in scales.items()}
    attributes = {"index_digest": index.digest, "events": len(chosen)}
    file_of(run).parent.mkdir(parents=True, exist_ok=True)
    shards.write_artefact(file_of(run), SCHEMA, attributes, arrays)
    return scales


def _resolved(run: Run, how: Normalise | None, name: str) -> Normalise | None:
    if how is None or how.scale != "auto":
        return how
    path = file_of(run)
    if not path.is_file():
        raise ConfigError(
            f"{path} is missing: it holds the scale that `scale: auto` was measured to be when the network was "
            "trained; copy it there with the checkpoints, or give the number"
        )
    status = path.stat()
    return Normalise(kind=how.kind, scale=_read(path, status.st_mtime_ns, status.st_size)[name])


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> dict[str, float]:
    """The scales in a file that is whole; `changed` and `size` tell its versions apart."""
    problems = shards.validate(path, SCHEMA)
    if problems:
        raise ConfigError("; ".join(problems))
    return {name: float(array[0]) for name, array in shards.read_artefact(path, SCHEMA).arrays.items()}
