"""The xy shard: candidate voxels with their charges, labels, and all of the truth, one file per batch of events."""

from __future__ import annotations

from dataclasses import replace

from hpcreco.shards import Attribute, Field, Schema, Table

AXES = ("x", "y", "z")

XY = Schema(
    format="hpcreco/protodune/xy",
    version=1,
    tables=(
        Table(
            "voxels",  # candidates, in lexicographic (x, y, z) order
            (
                Field("coords", "int32", AXES, unit="coarse cell"),
                Field("features", "float32", (), unit="electrons"),  # charge shared to the cell, by plane
                Field("labels", "float32", (), optional=True),  # first truth value of the cell, else 0
                Field(
                    "coarser_row", "int32", optional=True
                ),  # row of `coarser` it lies in, -1: no true charge
            ),
        ),
        Table(
            "truth",  # all true cells, candidates or not
            (
                Field("coords", "int32", AXES, unit="coarse cell"),
                Field("values", "float32", ()),
                Field("track_id", "int32", optional=True),
                Field("pdg", "int32", optional=True),
            ),
            optional=True,
        ),
        Table(
            "coarser",  # true sums on a still coarser grid, `downsample_y` coarse cells to one of these
            (Field("coords", "int32", AXES, unit="coarser cell"), Field("values", "float32", ())),
            optional=True,
        ),
        Table(
            "tiling",  # what tiling did to the event
            (
                Field("lost_charge", "float64", (), unit="electrons"),  # no candidate could take it, by plane
                Field("fine_voxels", "int64"),  # candidates before downsampling
                Field("missed", "int64", optional=True),  # true cells that are no candidates
            ),
            ragged=False,
            optional=True,  # unknown for files made by the original program
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
        Attribute("downsample_y", "ints", required=False),
        Attribute(
            "joined", "json", required=False
        ),  # of several TPCs: their frame, shifts, residuals, counts
        Attribute("source_files", "strs", volatile=True),
        Attribute("recipe", "json", required=False, volatile=True),  # what decides whether it is stale
    ),
)


def _before_downsampling() -> Schema:
    """Charges in double precision and the truth rows as parsed: nothing that coarse cells are made of is lost."""
    voxels, truth, *rest = XY.tables
    fine = replace(voxels, fields=tuple(_exact(field) for field in voxels.fields))
    return Schema("hpcreco/protodune/pixel", 3, (fine, truth, *rest), XY.attributes)


def _exact(field: Field) -> Field:
    return replace(field, dtype="float64") if field.name == "features" else field


PIXEL = _before_downsampling()
