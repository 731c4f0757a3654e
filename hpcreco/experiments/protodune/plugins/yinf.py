"""What a network says of images: one class each."""

from __future__ import annotations

from hpcreco.shards import Field, Schema, Table
from hpcreco.yinf import ATTRIBUTES

CLASSES = Schema(
    format="hpcreco/protodune/classes",
    version=1,
    tables=(
        Table(
            "images",
            (Field("class", "int64"), Field("probability", "float32"), Field("label", "int64")),
            ragged=False,
        ),
    ),
    attributes=ATTRIBUTES,
)
