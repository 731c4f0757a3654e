"""The yinf shard of IceCube: what a model says of every event of a pulses shard, events in the same order."""

from __future__ import annotations

from hpcreco.experiments.icecube.reconstruct import tables
from hpcreco.shards import Attribute, Field, Schema, Table
from hpcreco.yinf import ATTRIBUTES

YINF = Schema(
    format="hpcreco/icecube/yinf",
    version=1,
    tables=tables.TABLES,
    attributes=(*ATTRIBUTES, *tables.ATTRIBUTES),
)

#: what `hpcreco infer` and validation write: how likely events are at their true parameters
LOSSES = Schema(
    format="hpcreco/icecube/losses",
    version=1,
    tables=(
        Table(
            "events_at_truth",
            (
                Field("loss", "float64", finite=False),  # minus log likelihood
                Field("charge", "float32", unit="PE"),  # on usable DOMs
                Field("expected", "float32", unit="PE"),
            ),
            ragged=False,
        ),
    ),
    attributes=(*ATTRIBUTES, Attribute("terms", "strs")),
)
