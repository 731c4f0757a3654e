"""The yinf shard of ProtoDUNE: what a network says of every candidate voxel of an xy shard, row by row in the
same order.
"""

from __future__ import annotations

from hpcreco.shards import Attribute, Field, Schema, Table
from hpcreco.yinf import ATTRIBUTES

YINF = Schema(
    format="hpcreco/protodune/yinf",
    version=1,
    tables=(
        Table(
            "voxels",
            (
                Field("coords", "int32", ("x", "y", "z"), unit="voxels"),
                # one of the two, as the attribute `kind` says: "probability" or "electrons"
                Field("probability", "float32", optional=True),
                Field("charge", "float32", unit="electrons", optional=True),
                #: what the network was trained to say: 1 for voxels that hold charge, or their electrons; absent
                #: without truth
                Field("labels", "float32", optional=True),
            ),
        ),
    ),
    attributes=(
        *ATTRIBUTES,
        Attribute("kind", "str"),
        # taken over from the xy shard
        Attribute("event_type", "str", required=False),
        Attribute("index", "int", required=False),
        Attribute("batch", "int", required=False),
        Attribute("tpc", "ints", required=False),
        Attribute("downsample", "ints", required=False),
        Attribute("threshold", "float", required=False),
        # of charge that `hpcreco protodune mask` has masked
        Attribute("charge_digest", "str", required=False),
        Attribute("mask_digest", "str", required=False),
        Attribute("mask_threshold", "float", required=False),
        Attribute("mask_recipe", "str", required=False, volatile=True),
    ),
)
