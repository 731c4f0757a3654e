"""Say what a reconstruction is worth: resolutions against energy, coverage, pulls, calibration of pulse times.

RECO is a folder of yinf files that `hpcreco icecube reconstruct` made, or one such file. Writes report.html, which
holds everything, a PNG and a CSV file per picture, and report.txt. The output_dir of a training gets its losses,
metrics, learning rate and time against the epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcreco.world import detect

EPILOG = """\
examples:
  hpcreco report reco
  hpcreco icecube report reco -o report
  hpcreco icecube report reco --contained 100         only vertices at most so many metres from the detector's axis
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument("reco", type=Path, metavar="RECO", help="a folder of yinf files, or one")
    parser.add_argument("-o", "--out", type=Path, help="folder to write (default: RECO/report)")
    parser.add_argument(
        "--energy", type=float, nargs=2, metavar="GEV", help="only events with a true energy between"
    )
    parser.add_argument(
        "--contained", type=float, metavar="M", help="only vertices this close to the detector's axis"
    )
    parser.add_argument("--no-pictures", action="store_true", help="only text and tables")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its text."""
    if detect().rank != 0:  # started like the other verbs under mpiexec or srun: one report is enough
        return 0
    from hpcreco.experiments.icecube.analysis import results as _results
    from hpcreco.experiments.icecube.analysis.writing import write
    from hpcreco.pages import training

    base = args.reco.parent if args.reco.is_file() else args.reco
    folder = args.out or base / "report"
    trained = training.runs_with_summaries({base.name: base})
    if trained and args.reco.is_dir():
        text = training.write(folder, trained)
    else:
        found = _results.read(_results.find(args.reco))
        chosen = found.select(energy=args.energy, radius=args.contained)
        text = write(folder, chosen, not args.no_pictures)
    print(f"{text}\nwritten to {folder}")
    return 0
