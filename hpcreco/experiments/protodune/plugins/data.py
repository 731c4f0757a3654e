"""Data sets whose events are made when they are asked for: `random` images, `random_sparse` voxels, and users' own.

Both are made so that there is something to learn: a network that works is right more and more often.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from hpcreco import shards
from hpcreco.config import ConfigError
from hpcreco.experiments.protodune.settings import Named
from hpcreco.nn import lookup

PARTS = ("train", "validation")
VOXELS, IMAGES = "voxels", "images"


class DataSet(Protocol):
    """What ``data.name: module:Class`` names; made with the other keys of `data:` as arguments.

    table: "voxels" or "images", what an event is; "voxels" when the class does not say.
    """

    def size(self, part: str) -> int:
        """Number of events of `part`, "train" or "validation"; 0 when there is none."""

    def event(self, part: str, number: int, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """Event `number` of `part`.

        Of voxels: coords int32 (N, 3) x, y, z; features float32 (N, F); labels float32 (N, 1), which may be left out.
        Of images: image float32 (C, H, W); label, a class number. `rng` is that of this event and, in training, of this
        epoch: draw augmentation from it.
        """


class RandomImages:
    """`random`: images of noise, in each the pattern of its class (which depends on n_classes and shape alone)."""

    table = IMAGES

    def __init__(
        self,
        n_train: int = 64,
        n_valid: int = 32,
        input_shape: Sequence[int] = (1, 16, 16),
        n_classes: int = 3,
        noise: float = 0.5,
    ) -> None:
        self._sizes = {"train": n_train, "validation": n_valid}
        self.input_shape, self.n_classes, self._noise = tuple(input_shape), n_classes, noise
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise ValueError(
                f"input_shape {list(input_shape)}: expected channels, height, width, e.g. [3, 32, 32]"
            )
        patterns = np.random.default_rng(0).normal(size=(n_classes, *self.input_shape))
        self._patterns = patterns.astype(np.float32)

    def size(self, part: str) -> int:
        """As the config says."""
        return self._sizes[part]

    def event(self, part: str, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Class number % n_classes, under new noise in every epoch."""
        label = number % self.n_classes
        noise = rng.normal(scale=self._noise, size=self.input_shape).astype(np.float32)
        return {"image": self._patterns[label] + noise, "label": np.int64(label)}


class RandomSparse:
    """`random_sparse`: straight tracks (true) among scattered voxels (ghosts), on a small grid.

    The charges of true voxels agree between the planes, those of ghosts do not.
    """

    table = VOXELS

    def __init__(
        self,
        n_train: int = 16,
        n_valid: int = 8,
        voxels: int = 400,
        spatial_size: Sequence[int] = (32, 32, 32),
        n_features: int = 3,
        true_share: float = 0.2,
    ) -> None:
        self._sizes = {"train": n_train, "validation": n_valid}
        self._voxels, self._size, self._features, self._share = (
            voxels,
            tuple(spatial_size),
            n_features,
            true_share,
        )
        if not 0 < voxels <= np.prod(self._size) / 2:
            raise ValueError(f"voxels {voxels}: expected 1 to half of the {np.prod(self._size)} of the grid")

    def size(self, part: str) -> int:
        """As the config says."""
        return self._sizes[part]

    def event(self, part: str, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Another event for every number and, in training, every epoch."""
        size = np.array(self._size)
        on_tracks: np.ndarray = np.zeros((0, 3), int)
        while len(on_tracks) < self._share * self._voxels:
            ends = rng.random((2, 3)) * size
            along = np.linspace(0, 1, 2 * size.max())[:, None]
            track = np.floor(ends[0] + along * (ends[1] - ends[0])).astype(int)
            on_tracks = np.unique(np.concatenate([on_tracks, track]), axis=0)
        true = np.ravel_multi_index(tuple(on_tracks.T), self._size)
        others = np.setdiff1d(np.arange(size.prod()), true)
        ghosts = rng.choice(others, max(0, self._voxels - len(true)), replace=False)
        cells = np.concatenate([true, ghosts])
        labels = np.arange(len(cells))[:, None] < len(true)
        charge = rng.exponential(size=(len(cells), self._features))
        charge = np.where(labels, charge.mean(axis=1, keepdims=True), charge)
        order = np.argsort(cells)
        coords = np.stack(np.unravel_index(cells, self._size), axis=1)
        return {
            "coords": coords[order].astype(np.int32),
            "features": charge[order].astype(np.float32),
            "labels": labels[order].astype(np.float32),
        }


DATA_SETS: dict[str, Any] = {"random": RandomImages, "random_sparse": RandomSparse}


def build(named: Named) -> Any:
    """The data set of a config: one of DATA_SETS, or ``module:Class``. Raises ConfigError."""
    return _built(named.name, json.dumps(named.arguments, sort_keys=True, default=list))


@lru_cache(maxsize=8)
def _built(name: str, arguments: str) -> Any:
    found = lookup.find(name, DATA_SETS, "data.name")
    made = lookup.make(found, json.loads(arguments), "data")
    for method in ("size", "event"):
        if not callable(getattr(made, method, None)):
            raise ConfigError(
                f"data.name: {name} has no method {method}(); a data set has size(part) and event(part, number, rng)"
            )
    return made


def table_of(named: Named) -> str:
    """Of what the events of a data set are made: `VOXELS` or `IMAGES`. Raises ConfigError."""
    table = getattr(build(named), "table", VOXELS)
    if table not in (VOXELS, IMAGES):
        raise ConfigError(f"data.name: {named.name}.table is {table!r}; expected {VOXELS!r} or {IMAGES!r}")
    return str(table)


def index(named: Named, part: str, seed: int) -> shards.Index | None:
    """The events of `part`; None when there are none. Raises ConfigError."""
    n = build(named).size(part)
    if not n:
        return None
    recipe = json.dumps([named.model_dump(mode="json"), seed], sort_keys=True)
    name = named.name.replace(":", ".")
    return shards.made({f"{name}/{part}.h5": n}, recipe, (table_of(named),))
