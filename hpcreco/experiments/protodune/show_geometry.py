"""Show a geometry: its drift volumes and wire planes, and how much of each face its wires cover."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcreco.experiments.protodune.geometry import Face, WirePlane

EPILOG = """\
examples:
  hpcreco protodune geometry                                 the built-in ProtoDUNE-SP
  hpcreco protodune geometry wires:two_faces                 the shipped example of another detector
  hpcreco protodune geometry wires:mine.yaml --tpc 1         only one TPC, to check what you wrote
  hpcreco protodune geometry larsoft:wires.json.bz2 --save wires.h5      then: --geometry saved:wires.h5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = EPILOG
    parser.add_argument(
        "geometry",
        nargs="?",
        default="pdsp",
        help="pdsp, larsoft:<dump>, wires:<description>, saved:<file> (default: %(default)s)",
    )
    parser.add_argument("--tpc", type=int, help="only this TPC (default: all)")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="keep the geometry as plain arrays, for saved:FILE"
    )


def run(args: argparse.Namespace) -> int:
    """Print one line per plane; exit code 0."""
    from hpcreco.experiments.protodune import geometry
    from hpcreco.experiments.protodune.geometry import saved

    found = geometry.load(args.geometry)
    tpcs = found.tpcs if args.tpc is None else (found.face(args.tpc).tpc,)
    print(f"{found.name}, digest {found.digest[:12]}")
    for tpc in tpcs:
        face = found.face(tpc)
        box = " ".join(f"{low:g}..{high:g}" for low, high in zip(face.r_min, face.r_max, strict=True))
        print(f"TPC {tpc}: APA {face.apa} face {face.face}, x y z {box} mm")
        for plane in face.planes:
            print(
                f"  {plane.name}  {plane.angle:+8.3f} deg  pitch {plane.pitch * geometry.PIXEL_SIZE:.3f} mm  "
                f"{plane.n_wires:5d} wires  channels {plane.channels.min()}-{plane.channels.max()}  "
                f"covers {100 * covered(face, plane):.2f} %"
            )
    if args.save is not None:
        saved.save(found, args.save)
        print(f"saved as {args.save}; use it with --geometry saved:{args.save}")
    return 0


def covered(face: Face, plane: WirePlane) -> float:
    """Share of the face's area that lies in strips with a wire."""
    import numpy as np

    from hpcreco.experiments.protodune.overlap import lower_share

    n_y, n_z = face.pixels
    total = 0.0
    for iz in range(n_z):
        strip, lower = lower_share(plane, np.array(iz), np.arange(n_y))
        for number, share in ((strip, lower), (strip + 1, 1 - lower)):
            total += share[(number >= 0) & (number < plane.n_wires)].sum()
    return total / (n_y * n_z)
