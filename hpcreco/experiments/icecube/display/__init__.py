"""Draw one event: the DOMs that saw light, when and how much; densities against pulses; the likelihood around a fit.

FILE is a pulses shard or a yinf file of `hpcreco icecube reconstruct`. Writes PNG files and one HTML page with all of
them; of a yinf file also the DOMs' expected light with its parts, the sky map and the scans, as far as there are any.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcreco.world import detect

EPILOG = """\
examples:
  hpcreco display pulses/pulses-00000.h5 --event 3
  hpcreco display reco/yinf-00000.h5 --event 3 -o pictures
  hpcreco icecube display reco/yinf-00000.h5 --doms 12 --no-model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="pulses shard, or yinf file of a reconstruction"
    )
    parser.add_argument("--event", type=int, metavar="K", help="event number (default: the file's first)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )
    parser.add_argument("--pulses", type=Path, metavar="FILE", help="a yinf file's pulses shard, if moved")
    parser.add_argument("--model", metavar="MODEL", help="a yinf file's model, if moved")
    parser.add_argument(
        "--no-model", action="store_true", help="without the expected light, which needs the model"
    )
    parser.add_argument("--doms", type=int, default=9, help="how many of the brightest DOMs (default: 9)")


def run(args: argparse.Namespace) -> int:
    """Draw the event and print where the pictures are."""
    if detect().rank != 0:  # started like the other verbs under mpiexec or srun: one picture is enough
        return 0
    from hpcreco.experiments.icecube.display import load, pictures, style
    from hpcreco.pages import page
    from hpcreco.shards import atomic

    shown = load.load(args.file, args.event, args.pulses)
    curves = None if args.no_model or shown.best is None else load.curves(shown, args.model, args.doms)
    args.out.mkdir(parents=True, exist_ok=True)
    stem = f"{args.file.stem}-event{shown.number}"
    sections = []
    for name, (title, figure, caption) in pictures.draw(shown, curves).items():
        content = page.png(figure, style.DPI)
        target = args.out / f"{stem}-{name}.png"
        with atomic(target) as temporary:
            temporary.write_bytes(content)
        print(target)
        sections.append((title, page.image(content, caption)))
    sections.append(("Parameters", page.table(shown.table())))
    target = args.out / f"{stem}.html"
    with atomic(target) as temporary:
        temporary.write_text(page.page(f"Event {shown.number}", shown.heading(), sections))
    print(target)
    return 0
