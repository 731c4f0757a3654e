"""One event of an xy shard, as the network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcreco.config import Run
from hpcreco.data.batch import Event
from hpcreco.experiments.protodune.files import settings_of, source_position
from hpcreco.experiments.protodune.keys import CELLNETS
from hpcreco.experiments.protodune.settings import Normalise, Range, Settings
from hpcreco.shards import Shard

#: the table of an Event: coords int32 (N, 3) x, y, z; features float32 (N, F); labels float32 (N, 1)
TABLE = "voxels"


class DataError(ValueError):
    """An event cannot be used as the config asks."""

    exit_code = 1


class XYReader:
    """Reads events; what it does to them depends on the config and on whether they are trained on.

    Order: coord_lim (training only), z_segments, noise, round, scale, then the threshold on the scaled labels
    and, last, the squeezing of charges. Noise and rounding are for charges, so the one-hot columns stay 0 or
    1. An event without truth has no labels.
    """

    def __init__(self, settings: Settings, training: bool) -> None:
        self._settings, self._training = settings, training
        self._transforms = settings.reading.transforms
        model = settings.model
        self._spatial_size = model.arguments["spatial_size"] if model.name in CELLNETS else None
        self._features = model.arguments["nInputFeatures"] if model.name in CELLNETS else None

    def __call__(self, shard: Shard, position: int, rng: np.random.Generator) -> Event:
        """Event number `position` of `shard`. Raises DataError naming file, event and what does not fit."""
        where = f"{shard.path}, event {int(shard.event_ids[position])}"
        columns = shard.read(position, TABLE)
        labels = self._labels(columns.get("labels"), Path(shard.path), where)
        coords = np.asarray(columns["coords"], np.int32)
        features = np.asarray(columns["features"], np.float32)
        if not np.isfinite(features).all():
            raise DataError(
                f"{where}: features hold NaN or infinity; `hpcreco validate {shard.path}` shows where"
            )
        limits = self._transforms.coord_lim if self._training else None
        if limits is not None:
            keep = inside(coords, limits)
            coords, features = coords[keep], features[keep]
            labels = labels[keep] if labels is not None else None
        check_extent(coords, self._spatial_size, where)
        features = self._network_input(coords, features, rng)
        if self._features is not None and features.shape[1] != self._features:
            raise DataError(
                f"{where}: {features.shape[1]} feature columns (transforms included), but the model's "
                f"nInputFeatures is {self._features}"
            )
        table = {"coords": coords, "features": features}
        if labels is not None:
            table["labels"] = labels
        return Event({TABLE: table})

    def _labels(self, labels: np.ndarray | None, path: Path, where: str) -> np.ndarray | None:
        """float32 (N, 1) scaled labels, 0 or 1 with a threshold; None when the shard has none."""
        if labels is None:
            if self._training:
                raise DataError(
                    f"{where}: no labels to train on; tile it with truth, or list it under data.inference_i only"
                )
            return None
        values = np.asarray(labels, np.float32)[:, :1] * np.float32(scale_of(self._settings, path))
        if self._settings.reading.threshold is not None:
            values = (values > self._settings.reading.threshold).astype(np.float32)
        return values

    def _network_input(self, coords: np.ndarray, charges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        transforms = self._transforms
        if transforms.noise is not None:
            noise = rng.normal(transforms.noise.mean, transforms.noise.sd, charges.shape)
            charges = charges + noise.astype(np.float32)
        if transforms.round is not None:
            charges = np.round(charges, transforms.round)
        charges = squeeze(charges, self._settings.reading.normalise)
        if transforms.z_segments is None:
            return charges
        return np.concatenate([charges, one_hot_segments(coords[:, 2], transforms.z_segments)], axis=1)


def reader(run: Run, training: bool) -> XYReader:
    """The reader of a run's training (`training`) or validation events."""
    return XYReader(settings_of(run), training)


def inside(coords: np.ndarray, limits: Sequence[Range | None]) -> np.ndarray:
    """(N,) mask of coords (N, 3) within [low, high) on every axis that has limits."""
    keep = np.ones(len(coords), bool)
    for axis, limit in enumerate(limits):
        if limit is not None:
            keep &= (coords[:, axis] >= limit[0]) & (coords[:, axis] < limit[1])
    return keep


def one_hot_segments(z: np.ndarray, bounds: Sequence[int]) -> np.ndarray:
    """(N, len(bounds)) float32 with a 1 for the first bound above z (N,); none beyond the last bound."""
    segment = np.searchsorted(np.asarray(bounds), z, side="right")
    return (segment[:, None] == np.arange(len(bounds))).astype(np.float32)


def squeeze(charges: np.ndarray, how: Normalise | None) -> np.ndarray:
    """Charges (N, F) in the size that networks learn from; as they are when `how` is None."""
    if how is None:
        return charges
    scaled = charges / np.float32(how.scale)
    if how.kind == "asinh":
        return np.arcsinh(scaled)
    return np.sign(scaled) * np.log1p(np.abs(scaled))


def check_extent(coords: np.ndarray, spatial_size: Sequence[int] | None, where: str) -> None:
    """Raise DataError unless all coords (N, 3) are in [0, spatial_size); it gives the size needed."""
    if spatial_size is None or len(coords) == 0:
        return
    low, high = coords.min(axis=0), coords.max(axis=0)
    if (low < 0).any():
        raise DataError(
            f"{where}: negative coordinates, lowest x, y, z = {low.tolist()}; voxels must lie in [0, spatial_size)"
        )
    if (high >= np.asarray(spatial_size)).any():
        needed = [
            max(int(size), 1 << int(top).bit_length()) for size, top in zip(spatial_size, high, strict=True)
        ]
        raise DataError(
            f"{where}: voxels reach x, y, z = {high.tolist()}, outside model.spatial_size {list(spatial_size)}; "
            f"set it to {needed} or more"
        )


def scale_of(settings: Settings, path: Path) -> float:
    """The factor on labels for a file: that of its folder, by the folder's real position in data_path."""
    scale = settings.reading.transforms.scale
    if not isinstance(scale, tuple):
        return scale
    position = source_position(settings.sources, path)
    if position is None:
        raise DataError(
            f"{path}: not in a folder of data.data_path, so none of the {len(scale)} numbers of transforms.scale "
            "is its own"
        )
    return scale[position]
