"""Draw one event: truth, candidates, prediction and their difference, in 3-D and three projections.

FILE is an xy or yinf file, or a parsed wire or truth file (wire files give a channel-time image). Writes a PNG and,
for voxels, one standalone HTML page to turn, zoom and cut in a browser, which works without a network.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.shards import atomic
from hpcreco.world import detect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPILOG = """\
examples:
  hpcreco display xy/batch0-reco_BeamCosmic_001_xy-TPC1.h5
  hpcreco display runs/ghost3d_tiny/inference/epoch9-batch0-reco_Mu_001_yinf-TPC1.h5 --event 1 --out pictures
  hpcreco display parsed/reco_BeamCosmic_001_wire-TPC1.h5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="xy, yinf, wire or truth file, ours or legacy npz"
    )
    parser.add_argument(
        "--event",
        type=int,
        metavar="K",
        help="event number as in the parsed file (default: the file's first)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="scores above it are called true (default: 0.5)"
    )
    parser.add_argument(
        "--true-cut",
        metavar="CUT",
        help="voxels with more than this are true: 0.17MeV, 5000e, or a number in the labels' unit "
        "(default: data.threshold of the run, else 0)",
    )
    parser.add_argument("--units", choices=("mm", "cells"), default="mm", help="of the axes (default: mm)")
    parser.add_argument(
        "--xy",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where a yinf file's xy file is, if moved",
    )
    parser.add_argument("--only", choices=("png", "html"), help="write only this kind of file")


def run(args: argparse.Namespace) -> int:
    """Draw the event and print where the pictures are."""
    from hpcreco.experiments.protodune.analysis.cut import parse_cut
    from hpcreco.experiments.protodune.display.load import load
    from hpcreco.experiments.protodune.display.page import page
    from hpcreco.experiments.protodune.display.pictures import draw_scene, draw_wires
    from hpcreco.experiments.protodune.display.scene import DisplayError, WireImage

    if detect().rank != 0:  # started like the other verbs under mpiexec or srun: one picture is enough
        return 0
    cut = parse_cut(args.true_cut) if args.true_cut else None
    event = load(args.file, args.event, cut, args.xy)
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / f"{args.file.stem}-event{event.event_id}"
    if isinstance(event, WireImage):
        if args.only == "html":
            raise DisplayError(f"{args.file} holds waveforms; there is no HTML page of these, only a PNG")
        _save(draw_wires(event), stem)
        return 0
    if args.only != "html":
        _save(draw_scene(event, args.threshold, args.units), stem)
    if args.only != "png":
        target = stem.with_name(f"{stem.name}.html")
        with atomic(target) as temporary:
            temporary.write_text(page(event, args.threshold, args.units))
        print(target)
    return 0


def _save(figure: Figure, stem: Path) -> None:
    """Write a PNG and say where it is."""
    target = stem.with_name(f"{stem.name}.png")
    with atomic(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    print(target)
