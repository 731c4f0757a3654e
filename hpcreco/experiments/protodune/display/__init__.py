"""Draw one event: truth, candidates, prediction and their difference, in 3-D and three projections.

FILE is an xy, yinf or solved file, or a parsed one: wire and hit files give a channel-time image, truth and the
reference algorithms' spacepoint and wirecell files voxels. Several files of the same event are drawn side by side with
the same axes and colours; voxels beside a wire file are also projected onto its channels.

Writes PNGs, and for voxels one standalone HTML page to turn, zoom and cut in a browser, which works without a network.
Their names begin with the file's, of several the first: FILE-event<K>.png and .html; several files with voxels:
FILE-event<K>-compared.png, -compared-charge.png, -compared-error.png and .html; waveforms with voxels:
FILE-event<K>-channels.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.world import detect

if TYPE_CHECKING:
    from hpcreco.experiments.protodune.display.load import Wanted

EPILOG = """\
examples:
  hpcreco display xy/batch0-reco_BeamCosmic_001_xy-TPC1.h5
  hpcreco display runs/ghost3d_tiny/inference/epoch9-batch0-reco_Mu_001_yinf-TPC1.h5 --event 1 --out pictures
  hpcreco display A_yinf.h5 B_yinf.h5                       two runs of the same xy file, side by side
  hpcreco display A_yinf.h5 solved.h5 reco_BeamCosmic_001_wirecell-TPC1.npz      and other reconstructions
  hpcreco display parsed/reco_BeamCosmic_001_wire-TPC1.h5   channel-time image
  hpcreco display parsed/reco_BeamCosmic_001_wire-TPC1.h5 A_yinf.h5              with the voxels on their wires
  hpcreco display A_yinf.h5 --box 1000:2000,,:900           x from 1 to 2 m, all of y, z up to 0.9 m

Probabilities above --threshold are called true, and so are voxels with more than 1000 e predicted or solved.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="files of the same event, ours or legacy npz")
    add(
        "--event",
        type=int,
        metavar="K",
        help="event number as in the parsed file (default: the file's first)",
    )
    add("-o", "--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    add(
        "--threshold", type=float, default=0.35, help="scores above it are called true (default: %(default)s)"
    )
    add(
        "--true-cut",
        metavar="CUT",
        help="voxels with more than this are true: 0.17MeV, 5000e, or a number in the labels' unit "
        "(default: data.threshold of the run, else 0)",
    )
    add("--units", choices=("mm", "cells"), default="mm", help="of the axes and --box (default: mm)")
    add(
        "--box",
        metavar="X,Y,Z",
        help="draw only this region: three ranges low:high, each side of which may be left out (write --box=-100:,, "
        "for one that starts with a minus)",
    )
    add("--xy", type=Path, action="append", default=[], metavar="DIR", help="where xy files are, if moved")
    add("--geometry", default="pdsp", help="of the wires: pdsp or larsoft:<wire dump> (default: %(default)s)")
    add("--only", choices=("png", "html"), help="write only this kind of file")


def run(args: argparse.Namespace) -> int:
    """Draw the event and print where the pictures are."""
    from hpcreco.experiments.protodune.analysis.cut import parse_cut
    from hpcreco.experiments.protodune.display.load import Wanted
    from hpcreco.experiments.protodune.display.scene import DisplayError

    if detect().rank != 0:  # started like the other verbs under mpiexec or srun: one picture is enough
        return 0
    if not 0 <= args.threshold < 1:
        raise DisplayError(f"--threshold {args.threshold}: scores are between 0 and 1")
    cut = parse_cut(args.true_cut) if args.true_cut else None
    return _draw(args, Wanted(args.event, cut, args.xy))


def _draw(args: argparse.Namespace, wanted: Wanted) -> int:
    from hpcreco.experiments.protodune.display import output
    from hpcreco.experiments.protodune.display.load import load_together
    from hpcreco.experiments.protodune.display.region import parse_box
    from hpcreco.experiments.protodune.display.scene import Scene, WireImage

    box = parse_box(args.box) if args.box else None
    events = load_together(args.files, wanted)
    args.out.mkdir(parents=True, exist_ok=True)
    to = output.Output(args.out, args.only, args.threshold, args.units, box)
    named = [
        (f"{path.stem}-event{event.event_id}", event) for path, event in zip(args.files, events, strict=True)
    ]
    scenes = [(name, event) for name, event in named if isinstance(event, Scene)]
    voxels = [scene for _, scene in scenes]
    for name, image in named:
        if isinstance(image, WireImage):
            to.channels(name, image, voxels, args.geometry)
    if scenes:
        to.voxels(scenes[0][0], voxels)
    return 0
