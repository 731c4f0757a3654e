"""A toy experiment that needs everything the seam offers.

Two ragged tables with different term weights, two stages, an iteration-based run, events without rows. Regression of
known linear functions, so that training visibly works.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import config, shards, yinf
from hpcreco.experiment import Experiment

POINTS = shards.Schema(
    "hpcreco/toy_two_tables/points",
    1,
    (
        shards.Table(
            "points", (shards.Field("x", "float32", ("a", "b")), shards.Field("y", "float32", ("y",)))
        ),
        shards.Table(
            "links", (shards.Field("x", "float32", ("a", "b", "c")), shards.Field("z", "float32", ("z",)))
        ),
    ),
    (),
)
YINF = shards.Schema(
    "hpcreco/toy_two_tables/yinf",
    1,
    (shards.Table("points", (shards.Field("prediction", "float32", ("y",)),)),),
    yinf.ATTRIBUTES,
)


class Settings(config.Strict):
    """What a toy config may say beside the core's keys."""

    files: tuple[str, ...]
    validation: tuple[str, ...] = ()
    stages: int = 2
    lr: float = 0.05
    width: int = 8
    hang_at: int | None = None
    raise_at: int | None = None
    not_identity: tuple[str, ...] = ("hang_at", "raise_at", "not_identity")


def normalise(raw: dict[str, Any], lenient: bool) -> config.Run:
    """A toy config is a Run with a `settings` section."""
    settings = config.build(Settings, raw["settings"], "settings")
    return config.build(config.Run, {**raw, "settings": settings})


def files(run: config.Run, part: str) -> list[Path] | None:
    """The paths named in the config."""
    names = run.settings.files if part == "train" else run.settings.validation
    return [Path(name) for name in names] or None


def cost(run: config.Run, index: shards.Index) -> np.ndarray:
    """Rows of both tables."""
    return (index.rows["points"] + index.rows["links"]).astype(np.float64)


def write_shard(path: Path, events: int, seed: int) -> Path:
    """A shard of `events` events; every third one has no links, every fifth no points."""
    rng = np.random.default_rng(seed)
    with shards.ShardWriter(path, POINTS, {}) as writer:
        for number in range(events):
            n = 0 if number % 5 == 4 else int(rng.integers(1, 9))
            m = 0 if number % 3 == 2 else int(rng.integers(1, 5))
            x, u = rng.normal(size=(n, 2)).astype("f4"), rng.normal(size=(m, 3)).astype("f4")
            y, z = x @ np.float32([[1.0], [-2.0]]), u @ np.float32([[0.5], [1.0], [-1.0]])
            writer.append(number, {"points": {"x": x, "y": y}, "links": {"x": u, "z": z}})
    return path


EXPERIMENT = Experiment(
    name="toy_two_tables",
    normalise="toy_two_tables:normalise",
    files="toy_two_tables:files",
    cost="toy_two_tables:cost",
    task="toy_two_tables_task:TASK",
    schemas={"points": "toy_two_tables:POINTS", "yinf": "toy_two_tables:YINF"},
)
