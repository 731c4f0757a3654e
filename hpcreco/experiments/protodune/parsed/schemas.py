"""The tables of parsed HDF5 files."""

from __future__ import annotations

from hpcreco.shards import Attribute, Field, Schema, Table

NO_TPC = -1  # the `tpc` attribute of a file whose name holds none, or several
WAVEFORM_PRODUCTS = ("wire", "hit")
#: columns of the values of each truth-like product, in MeV or electrons
VALUE_COLUMNS = {
    "energy": ("energy",),
    "depo": ("energy",),
    "depoElectron": ("electrons",),
    "spacepoint": ("charge",),
    "wirecell": ("charge",),
}
_ATTRIBUTES = (
    Attribute("event_type", "str"),
    Attribute("index", "int"),
    Attribute("product", "str"),
    Attribute("tpc", "int"),  # NO_TPC for none or several
    Attribute("tpcs", "ints", required=False),  # of several
    Attribute("joined", "json", required=False),  # their frame, shifts, residuals, counts
    Attribute("recipe", "json", required=False, volatile=True),  # what decides whether it is stale
    Attribute("geometry", "str"),
    Attribute("geometry_digest", "str"),
    Attribute("generator", "str"),  # simulation, npz, frames, bee, depos
    Attribute("seed", "int", required=False),
    Attribute("settings", "json", required=False),
    Attribute("fingerprint", "str", required=False),
    Attribute("source", "strs", required=False, volatile=True),
)
WIRE = Schema(
    "hpcreco/protodune/wire",
    1,
    tables=(
        Table(
            "samples",
            (Field("tick", "<u2"), Field("channel", "<u2"), Field("value", "<f4", unit="electrons per tick")),
        ),
    ),
    attributes=(
        *_ATTRIBUTES,
        Attribute("n_ticks", "int"),
        Attribute("n_channels", "int"),
        Attribute("dead_channels", "ints", required=False),
    ),
)
TRUTH = Schema(
    "hpcreco/protodune/truth",
    1,
    tables=(
        Table(
            "voxels",
            (
                Field("coords", "<i4", ("x", "y", "z"), unit="fine voxels of the readout frame"),
                Field("values", "<f4", (), unit="MeV or electrons, see the column names"),
                Field("track_id", "<i4", optional=True),
                Field("pdg", "<i4", optional=True),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
PARTICLES = Schema(
    "hpcreco/protodune/particles",
    1,
    tables=(
        Table(
            "particles",
            (
                Field("track_id", "<i4"),
                Field("beam", "|u1"),
                # the original program's files know no more
                Field("pdg", "<i4", optional=True),
                Field("kinetic_energy", "<f4", unit="MeV", optional=True),
                Field("start", "<f4", ("x", "y", "z"), unit="mm, detector frame", optional=True),
                Field("time", "<f4", unit="us relative to the trigger", optional=True),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
TRAJECTORIES = Schema(
    "hpcreco/protodune/trajectories",
    1,
    tables=(
        Table(
            "trajectories",
            (
                Field("track_id", "<i4"),
                Field("points", "<i4"),
                Field("start", "<i4", ("x", "y", "z"), unit="fine voxel"),
                Field("end", "<i4", ("x", "y", "z"), unit="fine voxel"),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
CALO = Schema(
    "hpcreco/protodune/calo",
    1,
    tables=(
        Table(
            "objects",  # reconstructed tracks and showers, once per plane
            (
                Field("shower", "|u1"),  # else a track
                Field("plane", "|u1"),
                Field("kinetic_energy", "<f4", unit="MeV", finite=False),
            ),
        ),
        Table(
            "points",  # averaged over fine voxels
            (
                Field("object", "<i4"),  # row of `objects` in the event
                Field("coords", "<f4", ("x", "y", "z"), unit="fine voxel"),
                Field("values", "<f4", ("dqdx", "dedx", "residual_range"), finite=False),
            ),
        ),
    ),
    attributes=_ATTRIBUTES,
)
