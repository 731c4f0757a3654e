"""One event of an xy shard, as the network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcreco.config import Run
from hpcreco.data.batch import Event
from hpcreco.experiments.protodune import scaling
from hpcreco.experiments.protodune.dialect.keys import CELLNETS
from hpcreco.experiments.protodune.files import scale_of, settings_of
from hpcreco.experiments.protodune.settings import Range
from hpcreco.shards import Shard

#: the table of an Event: coords int32 (N, 3) x, y, z; features float32 (N, F); labels float32 (N, 1)
TABLE = "voxels"
#: all true voxels, for losses that ask for them: coords int32 (M, 3); values float32 (M, 1), treated like labels
TRUTH = "truth"


class DataError(ValueError):
    """An event cannot be used as the config asks."""

    exit_code = 1


class XYReader:
    """Reads events; what it does to them depends on the config and on whether they are trained on.

    Order: coord_lim (training only), z_segments, noise, round, scale, then the threshold on the scaled labels
    and, last, the squeezing of charges. Noise and rounding are for charges, so the one-hot columns stay 0 or
    1. An event without truth has no labels.
    """

    def __init__(self, run: Run, training: bool) -> None:
        self._run, self._training = run, training
        self._settings = settings = settings_of(run)
        self._transforms = settings.reading.transforms
        model = settings.model
        self._spatial_size = model.arguments["spatial_size"] if model.name in CELLNETS else None
        self._features = model.arguments["nInputFeatures"] if model.name in CELLNETS else None

    def __call__(self, shard: Shard, position: int, rng: np.random.Generator) -> Event:
        """Event number `position` of `shard`. Raises DataError naming file, event and what does not fit."""
        where = f"{shard.path}, event {int(shard.event_ids[position])}"
        columns = shard.read(position, TABLE)
        labels = self._labels(columns.get("labels"), shard, where)
        coords = np.asarray(columns["coords"], np.int32)
        features = np.asarray(columns["features"], np.float32)
        if not np.isfinite(features).all():
            raise DataError(
                f"{where}: features hold NaN or infinity; `hpcreco validate {shard.path}` shows where"
            )
        truth = self._truth(shard, position, where) if labels is not None else None
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
        if truth is None:
            return Event({TABLE: table})
        if limits is not None:
            keep = inside(truth["coords"], limits)
            truth = {name: column[keep] for name, column in truth.items()}
        return Event({TABLE: table, TRUTH: truth})

    def _truth(self, shard: Shard, position: int, where: str) -> dict[str, np.ndarray] | None:
        """Every true voxel of the event if the config wants them, its values scaled and cut like the labels."""
        if not self._settings.reading.full_truth:
            return None
        if not shard.has(TRUTH):
            raise DataError(
                f"{where}: no table `truth`, which {self._settings.loss.name if self._settings.loss else 'full_y'} "
                "needs; tile it again with truth"
            )
        columns = shard.read(position, TRUTH, ["coords", "values"])
        values = self._target(columns["values"], Path(shard.path))
        return {"coords": np.asarray(columns["coords"], np.int32), "values": values}

    def _labels(self, labels: np.ndarray | None, shard: Shard, where: str) -> np.ndarray | None:
        """float32 (N, 1) scaled labels, 0 or 1 with a threshold; None when the shard has none."""
        if labels is None:
            if self._training:
                raise DataError(
                    f"{where}: no labels to train on; tile it with truth, or list it under data.inference_i only"
                )
            return None
        if self._settings.predicts == "electrons" and self._transforms.scale == 1.0:
            unit = shard.attributes["y_unit"]
            if unit == "MeV":
                raise DataError(
                    f"{where}: labels are in {unit}, but the model predicts electrons; tile with --y-type "
                    "depoElectron, or give the electrons per MeV as data.transforms.scale"
                )
        return self._target(labels, Path(shard.path))

    def _target(self, values: np.ndarray, path: Path) -> np.ndarray:
        """(N, k) truth -> float32 (N, 1): its first column scaled, 0 or 1 with a threshold."""
        values = np.asarray(values, np.float32)[:, :1] * np.float32(scale_of(self._settings, path))
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
        charges = scaling.squeeze(charges, scaling.of_features(self._run))
        if transforms.z_segments is None:
            return charges
        return np.concatenate([charges, one_hot_segments(coords[:, 2], transforms.z_segments)], axis=1)


def reader(run: Run, training: bool) -> XYReader:
    """The reader of a run's training (`training`) or validation events."""
    return XYReader(run, training)


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


def check_extent(coords: np.ndarray, spatial_size: Sequence[int] | None, where: str) -> None:
    """Raise DataError unless all coords (N, 3) are in [0, spatial_size); it gives the size needed."""
    if spatial_size is None or len(coords) == 0:
        return
    columns = [
        coords[:, axis] for axis in range(3)
    ]  # one by one: numpy is slow across rows as short as these
    low, high = (np.array([reduce(column) for column in columns]) for reduce in (np.min, np.max))
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
