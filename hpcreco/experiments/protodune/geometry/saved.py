"""Geometries kept as plain arrays: a wire dump is read once, and its numbers travel with the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune.geometry import Face, Geometry, GeometryError, WirePlane, build
from hpcreco.shards import Attribute, Schema, ShardError
from hpcreco.shards.artefact import read_artefact, write_artefact

SCHEMA = Schema(
    "hpcreco/protodune/geometry",
    1,
    attributes=(
        Attribute("geometry", "str"),
        Attribute("geometry_digest", "str"),
        Attribute("planes", "json"),  # per face: tpc, apa, face, and the names of its planes
    ),
)


def save(geometry: Geometry, path: Path) -> None:
    """Write a geometry; `--geometry saved:PATH` reads it."""
    arrays: dict[str, np.ndarray] = {}
    faces = []
    for tpc, face in sorted(geometry.faces.items()):
        faces.append({"tpc": tpc, "apa": face.apa, "face": face.face, "planes": list(face.feature_names)})
        arrays[f"{tpc}.box"] = np.array([face.r_min, face.r_max], float)
        for plane in face.planes:
            key = f"{tpc}.{plane.name}"
            arrays[f"{key}.numbers"] = np.array([plane.angle, plane.pitch, plane.offset, *plane.direction])
            arrays[f"{key}.channels"] = plane.channels
            if plane.edges is not None:
                arrays[f"{key}.edges"] = plane.edges
    known = {"geometry": geometry.name, "geometry_digest": geometry.digest, "planes": faces}
    write_artefact(path, SCHEMA, known, arrays)


def read(path: Path) -> Geometry:
    """The geometry of a file that `save` wrote, equal in every number. Raises GeometryError."""
    try:
        kept = read_artefact(path, SCHEMA)
        faces = {}
        for row in kept.attributes["planes"]:
            tpc = row["tpc"]
            low, high = (tuple(map(float, corner)) for corner in kept.arrays[f"{tpc}.box"])
            planes = tuple(_plane(name, kept.arrays, f"{tpc}.{name}") for name in row["planes"])
            faces[tpc] = Face(tpc, row["apa"], row["face"], low, high, planes)
    except (ShardError, KeyError, ValueError) as error:
        raise GeometryError(f"{path}: not a saved geometry: {error}") from error
    return build(kept.attributes["geometry"], faces)


def _plane(name: str, arrays: dict[str, np.ndarray], key: str) -> WirePlane:
    angle, pitch, offset, e_z, e_y = arrays[f"{key}.numbers"].tolist()
    return WirePlane(
        name, angle, pitch, offset, arrays[f"{key}.channels"], (e_z, e_y), arrays.get(f"{key}.edges")
    )
