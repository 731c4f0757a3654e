"""A schema that has everything a schema can have, and events of it."""

from __future__ import annotations

import numpy as np
import pytest

from hpcreco.shards import Attribute, Field, Schema, ShardWriter, Table

SCHEMA = Schema(
    "hpcreco/toy/points",
    3,
    (
        Table(
            "points",
            (
                Field("coords", "int32", ("x", "y", "z")),
                Field("features", "float32", ()),
                Field("weight", "float64", optional=True, finite=False),
                Field("tick", "uint16"),
            ),
        ),
        Table("truth", (Field("pdg", "int32"),), optional=True),
        Table(
            "beam",
            (Field("momentum", "float32", ("px", "py", "pz"), unit="MeV"), Field("good", "bool")),
            ragged=False,
        ),
    ),
    (
        Attribute("tpc", "ints"),
        Attribute("threshold", "float"),
        Attribute("names", "strs", required=False),
        Attribute("options", "json", required=False),
        Attribute("note", "str", required=False, volatile=True),
    ),
)
ATTRIBUTES = {"tpc": [1, 5], "threshold": 1e-3, "names": ["ü", "", "abc"], "options": {"a": [1, None, "x"]}}


class Toy:
    """Makes, writes and compares toy events."""

    schema = SCHEMA
    attributes = ATTRIBUTES

    @staticmethod
    def event(seed: int, rows: int, truth: int = 0) -> dict[str, dict[str, np.ndarray]]:
        rng = np.random.default_rng(seed)
        return {
            "points": {
                "coords": rng.integers(-(2**31), 2**31, (rows, 3)).astype(np.int32),
                "features": rng.normal(size=(rows, 2)).astype(np.float32),
                "tick": rng.integers(0, 6000, rows).astype(np.uint16),
                "weight": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            },
            "truth": {"pdg": rng.integers(-3000, 3000, truth).astype(np.int32)},
            "beam": {"momentum": rng.normal(size=3).astype(np.float32), "good": bool(rng.integers(2))},
        }

    def events(self, sizes) -> list:
        return [self.event(number, rows, rows // 3) for number, rows in enumerate(sizes)]

    def write(self, path, events, *, attributes=None, compression="default", first_id=0) -> str:
        values = ATTRIBUTES | (attributes or {})
        with ShardWriter(path, SCHEMA, values, {"points/features": ("V", "X")}, compression) as writer:
            for number, event in enumerate(events):
                writer.append(first_id + number, event)
        return writer.digest

    @staticmethod
    def assert_event(shard, number: int, event) -> None:
        for table, fields in event.items():
            found = shard.read(number, table)
            assert set(found) == set(fields)
            for field, value in fields.items():
                expected = np.asarray(value) if shard.schema.table(table).ragged else np.asarray(value)[None]
                np.testing.assert_array_equal(found[field], expected)
                assert found[field].dtype == expected.dtype


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()
