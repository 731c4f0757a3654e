"""The yinf shard of IceCube: what a model says of every event of a pulses shard, events in the same order."""

from __future__ import annotations

from hpcreco.experiments.icecube.reconstruct import tables
from hpcreco.shards import Schema
from hpcreco.yinf import ATTRIBUTES

YINF = Schema(
    format="hpcreco/icecube/yinf",
    version=1,
    tables=tables.TABLES,
    attributes=(*ATTRIBUTES, *tables.ATTRIBUTES),
)
