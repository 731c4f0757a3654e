"""What comes after inference: the charge of cells as solved from the wires, and several TPCs in one frame."""

from __future__ import annotations

from hpcreco.experiments.protodune.xy import AXES, XY
from hpcreco.shards import Attribute, Field, Schema, Table

#: attributes that a solved file takes over from its xy file
OF_XY = (
    *("event_type", "index", "batch", "n_batches", "tpc", "downsample", "voxel_size_mm", "frame_origin_mm"),
    *("spatial_shape", "feature_names", "geometry", "geometry_digest"),
)

SOLVED = Schema(
    format="hpcreco/protodune/solved",
    version=1,
    tables=(
        Table(
            "voxels",  # the cells that were solved for, in lexicographic (x, y, z) order
            (
                Field("coords", "int32", AXES, unit="coarse cell"),
                Field("charge", "float32", unit="electrons"),
            ),
        ),
        Table(
            "wires",  # what the wires saw of the event, by plane
            (
                Field("seen", "float64", (), unit="electrons"),  # all live channels of the face
                Field("used", "float64", (), unit="electrons"),  # channels that meet a cell
                Field("explained", "float64", (), unit="electrons"),  # what the solution gives those
                Field("misfit", "float64"),  # |A q - s| / |s| over all equations
            ),
            ragged=False,
        ),
    ),
    attributes=(
        *(attribute for attribute in XY.attributes if attribute.name in OF_XY),
        Attribute("epoch", "int", required=False),  # of the network that chose the cells
        Attribute("cells", "str"),  # network, truth or all
        Attribute("threshold", "float"),  # least probability (network) or largest charge of no truth (truth)
        Attribute("grow", "int"),
        Attribute("method", "str"),
        Attribute("alpha", "float"),
        Attribute("dead_channels", "ints"),
        Attribute("solve_version", "int"),
        Attribute("yinf_digest", "str", required=False),
        Attribute("xy_digest", "str"),
        Attribute("wire_digest", "str"),
        Attribute("yinf_file", "str", required=False, volatile=True),
        Attribute("xy_file", "str", volatile=True),
        Attribute("wire_file", "str", volatile=True),
        Attribute("recipe", "json", volatile=True),  # what decides whether it is stale
    ),
)
MERGED = Schema(
    format="hpcreco/protodune/merged",
    version=1,
    tables=(
        Table(
            "voxels",  # in lexicographic (x, y, z) order of the common frame; x may be negative
            (
                Field("coords", "int32", AXES, unit="coarse cell"),
                Field("values", "float32", ()),  # charge [electrons], probability, or charge by plane
                Field("tpc", "int16"),  # the TPC that saw it, -1 where a gap between APAs was bridged
            ),
        ),
    ),
    attributes=(
        Attribute("event_type", "str"),
        Attribute("index", "int"),
        Attribute("batch", "int", required=False),
        Attribute("epoch", "int", required=False),
        Attribute("product", "str"),  # what was merged: solved, yinf or xy
        Attribute("tpc", "ints"),
        Attribute("downsample", "ints"),
        Attribute("voxel_size_mm", "floats"),
        Attribute("frame_origin_mm", "floats"),
        Attribute("frame", "json"),  # shifts, t0, and how far voxels are misplaced: less than half a cell
        Attribute("least", "float"),
        Attribute("geometry", "str"),
        Attribute("geometry_digest", "str"),
        Attribute("source_digests", "strs"),
        Attribute("source_files", "strs", volatile=True),
        Attribute("recipe", "json", volatile=True),
    ),
)
