"""The xy shard: candidate voxels with their charges, labels, and all of the truth, one file per batch."""

from __future__ import annotations

from hpcreco.shards import Attribute, Field, Schema, Table

AXES = ("x", "y", "z")

SCHEMA = Schema(
    format="hpcreco/protodune/xy",
    version=1,
    tables=(
        Table(
            "voxels",
            (
                Field("coords", "int32", AXES, unit="coarse cell"),
                Field("features", "float32", (), unit="electrons"),
                Field("labels", "float32", (), optional=True),
            ),
        ),
        Table(
            "truth",
            (
                Field("coords", "int32", AXES, unit="coarse cell"),
                Field("values", "float32", ()),
                Field("track_id", "int32", optional=True),
                Field("pdg", "int32", optional=True),
            ),
            optional=True,
        ),
        # charge that no candidate could take, and the truth that tiling missed
        Table(
            "tiling",
            (
                Field("lost_charge", "float64", (), unit="electrons"),
                Field("missed", "int64", ("cells",)),
                Field("fine_voxels", "int64", ("candidates",)),
            ),
            ragged=False,
        ),
    ),
    attributes=(
        Attribute("event_type", "str"),
        Attribute("index", "int"),
        Attribute("batch", "int"),
        Attribute("n_batches", "int"),
        Attribute("tpc", "ints"),
        Attribute("downsample", "ints"),
        Attribute("voxel_size_mm", "floats"),
        Attribute("frame_origin_mm", "floats"),
        Attribute("spatial_shape", "ints"),
        Attribute("feature_names", "strs"),
        Attribute("x_type", "str"),
        Attribute("y_type", "str"),
        Attribute("y_unit", "str"),
        Attribute("tiling_threshold", "float"),
        Attribute("active_none", "bool"),
        Attribute("clip_negative", "bool"),
        Attribute("legacy_rounding", "bool"),
        Attribute("dead_channels", "ints"),
        Attribute("tiling_version", "int"),
        Attribute("geometry", "str"),
        Attribute("geometry_digest", "str"),
        Attribute("source_digests", "strs"),
        Attribute("source_files", "strs", volatile=True),
        Attribute("fingerprint", "str", volatile=True),
        Attribute("code_version", "str", volatile=True),
        Attribute("command_line", "str", volatile=True),
        Attribute("hostname", "str", volatile=True),
        Attribute("workers", "int", volatile=True),
        Attribute("created_utc", "str", volatile=True),
    ),
)
